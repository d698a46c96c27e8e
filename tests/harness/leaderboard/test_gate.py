"""compare in continuous integration: what fails by which policy, as status, Markdown and JUnit XML."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from subnetbench import compare
from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard.compare_settings import FAIL_ON
from subnetbench.harness.leaderboard.gate import cases, junit, markdown_summary

GOOD = [0.70, 0.71, 0.72, 0.70, 0.71]
HOSTILE = "]]><failure/>\x1b[31m|&<"


@pytest.fixture
def sides(folder: Any, other_folder: Any) -> tuple[Any, Any]:
    """A reference and something newer in which `aslp` is worse, `dense` the same, `supermask` gone and `magnitude` of one seed."""
    folder.seeds(GOOD, method="aslp")
    other_folder.seeds([value - 0.3 + 0.01 * at for at, value in enumerate(GOOD)], method="aslp")
    for side in (folder, other_folder):
        side.seeds(GOOD, method="dense")
        side.seeds(GOOD[:2], method="edge_popup") if side is folder else side.seeds([0.72, 0.70], method="edge_popup")
    folder.seeds(GOOD, method="supermask")
    folder.seeds([0.5], method="magnitude")
    other_folder.seeds([0.4], method="magnitude")
    other_folder.add(None, method="dense", seed=9, status="failed", error_kind="nan", error="loss is NaN")
    return folder, other_folder


def test_each_word_of_the_policy_fails_by_what_it_says(sides: tuple[Any, Any]) -> None:
    old, new = (side.path for side in sides)
    failing: dict[str, set[str]] = {}
    for word in FAIL_ON:
        found = compare(new, against=old, fail_on=[word], margin=0.01)
        failing[word] = {case.method for case in cases(found) if case.failed}
        assert found.exit_status == 1
    assert failing == {
        "worse": {"aslp"},
        "missing": {"supermask"},
        "changed": {"aslp"},
        "undecided": {"magnitude"},
        "unproven": {"aslp", "edge_popup", "magnitude"},
        "failed": {"dense"},
    }
    assert compare(new, against=old, fail_on=[]).exit_status == 0
    assert compare(new, against=old, fail_on=["missing"], allow_missing=True).exit_status == 0
    assert compare(old, new).exit_status == compare(new, against=old).exit_status == 1
    assert compare(old, new).rows["a"].tolist() == compare(new, against=old).rows["a"].tolist()


def test_runs_that_failed_beside_all_rows_fail_by_that_word(folder: Any, other_folder: Any) -> None:
    """A method whose runs all failed, and one that is new: no compared row counts their failures."""
    for side in (folder, other_folder):
        side.seeds(GOOD, method="dense")
    assert compare(other_folder.path, against=folder.path, fail_on=["failed"]).exit_status == 0
    folder.seeds(GOOD, method="aslp")
    for method in ("aslp", "new"):
        other_folder.add(None, method=method, status="failed", error_kind="nan", error="loss is NaN")
    found = compare(other_folder.path, against=folder.path, fail_on=["failed"])
    assert found.exit_status == 1
    failed = {case.method: case.message for case in cases(found) if case.failed}
    assert failed == {"aslp": "1 run failed in b", "new": "1 run failed in b"}
    assert ElementTree.fromstring(junit(found)).get("failures") == "2"
    assert compare(other_folder.path, against=folder.path, fail_on=["worse"]).exit_status == 0


def test_an_empty_policy_is_refused(sides: tuple[Any, Any]) -> None:
    """`--fail-on "$POLICY"` with an unset variable must not let everything pass."""
    old, new = (str(side.path) for side in sides)
    done = CliRunner().invoke(app, ["compare", new, "--against", old, "--fail-on", ""])
    assert isinstance(done.exception, UserError), done.output
    assert "nothing to fail on" in str(done.exception)


def test_mistakes_are_named(sides: tuple[Any, Any]) -> None:
    old, new = (side.path for side in sides)
    with pytest.raises(UserError, match=r"fail_on.*wors.*worse, missing"):
        compare(old, new, fail_on=["wors"])
    with pytest.raises(UserError, match="against"):
        compare(old, new, against=old)


def test_a_loss_within_the_margin_is_proven_by_the_interval(folder: Any, other_folder: Any) -> None:
    folder.seeds(GOOD)
    other_folder.seeds([value - 0.001 * (1 + at % 2) for at, value in enumerate(GOOD)])
    for margin, status in ((0.003, 0), (0.0015, 1)):
        assert compare(folder.path, other_folder.path, fail_on=["unproven"], margin=margin).exit_status == status
    folder.seeds(GOOD, method="dense")
    other_folder.seeds(GOOD, method="dense")
    identical = [
        c for c in cases(compare(folder.path, other_folder.path, fail_on=["unproven"], margin=0.003)) if c.failed
    ]
    assert identical == []


def test_the_command_writes_a_summary_and_test_cases(sides: tuple[Any, Any], tmp_path: Path) -> None:
    old, new = (str(side.path) for side in sides)
    command = [
        "compare",
        new,
        "--against",
        old,
        "--markdown",
        str(tmp_path / "a.md"),
        "--junit",
        str(tmp_path / "a.xml"),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1, done.output
    text = (tmp_path / "a.md").read_text()
    assert text.startswith(
        "## subnetbench compare: failed\n\n5 cases: 2 failed, 1 undecided, 2 passed. Fails on: worse, missing."
    )
    assert re.search(r"\| worse \| emoji \| aslp \| top1: conv2 full \| worse beyond margin: 0\.7080 -> ", text)
    assert re.search(r"\| missing \| emoji \| supermask \| all metrics: conv2 full \(missing\) \| no such row", text)
    assert "<details>" in text
    assert "nan" not in text + (tmp_path / "a.xml").read_text()
    root = ElementTree.parse(tmp_path / "a.xml").getroot()
    assert {name: root.get(name) for name in ("tests", "failures", "skipped", "errors")} == {
        "tests": "5",
        "failures": "2",
        "skipped": "1",
        "errors": "0",
    }
    found = {case.get("classname"): [child.tag for child in case] for case in root.iter("testcase")}
    assert found == {
        "emoji.aslp": ["failure"],
        "emoji.dense": ["system-out"],
        "emoji.edge_popup": ["system-out"],
        "emoji.magnitude": ["skipped"],
        "emoji.supermask": ["failure"],
    }
    assert CliRunner().invoke(app, [*command, "--fail-on", "none"]).exit_code == 0
    assert CliRunner().invoke(app, [*command, "--fail-on", "failed"]).exit_code == 1
    assert "Fails on: failed." in (tmp_path / "a.md").read_text()


def test_help_lists_the_words_of_the_policy() -> None:
    text = " ".join(CliRunner().invoke(app, ["compare", "--help"], env={"COLUMNS": "250"}).output.split())
    assert ", ".join(FAIL_ON) in text


def test_names_of_others_stay_text(folder: Any, other_folder: Any) -> None:
    folder.seeds(GOOD, method=HOSTILE, dataset=HOSTILE)
    other_folder.seeds([0.1, 0.2, 0.1, 0.2, 0.1], method=HOSTILE, dataset=HOSTILE)
    found = compare(folder.path, other_folder.path)
    root = ElementTree.fromstring(junit(found))
    assert [len(list(root.iter(tag))) for tag in ("testsuite", "testcase", "failure")] == [1, 1, 1]
    assert "\x1b" not in junit(found)
    (line,) = [line for line in markdown_summary(found).splitlines() if line.startswith("| worse |")]
    assert len(re.findall(r"(?<!\\)\|", line)) == 6


def test_two_sets_of_one_folder(folder: Any) -> None:
    folder.seeds(GOOD, method="aslp")
    folder.seeds([value - 0.2 + 0.01 * at for at, value in enumerate(GOOD)], method="dense")
    found = compare(folder.path, a="method == 'aslp'", b="method == 'dense'")
    (case,) = cases(found)
    assert (case.method, case.failed) == ("aslp", "worse")
    assert "against dense" in case.name
