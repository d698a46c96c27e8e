"""The examples in docstrings of leaderboards and reports say what happens."""

import doctest
from pathlib import Path

import pytest

from subnetbench.harness.leaderboard import Leaderboard, compare, matrices
from subnetbench.harness.report import report_content, write_report

ROOT = Path(__file__).parents[3]


PUBLIC = [Leaderboard, compare, matrices, report_content, write_report]


@pytest.mark.parametrize("documented", PUBLIC, ids=lambda found: found.__name__)
def test_examples_run(documented, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = [test for test in doctest.DocTestFinder().find(documented, globs={"folder": tmp_path}) if test.examples]
    assert found
    for test in found:
        assert doctest.DocTestRunner().run(test).failed == 0
