"""What the program takes from its surroundings: usable CPU cores, and a home folder that may be missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from subnetbench.harness.core import environment
from subnetbench.harness.core.paths import default_data_root, home

CODE = "from subnetbench.harness.core.environment import usable_cpus; print(usable_cpus())"


def test_cores_that_a_process_may_not_use_do_not_count():
    core = min(os.sched_getaffinity(0))
    command = ["taskset", "-c", str(core), sys.executable, "-c", CODE]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "1"


@pytest.mark.parametrize(("quotas", "cores"), [([], 8), ([3], 3), ([3, 2], 2), ([99], 8), ([0], 1)])
def test_a_quota_of_the_control_group_counts(monkeypatch, quotas, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(environment, "_quotas", lambda: quotas)
    assert environment.usable_cpus() == cores


def test_without_a_home_folder_messages_say_what_to_set(monkeypatch):
    def missing(cls: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", classmethod(missing))
    monkeypatch.delenv("SUBNETBENCH_DATA", raising=False)
    root = default_data_root()
    assert "set SUBNETBENCH_DATA" in str(root)
    assert not root.exists()
    with pytest.raises(OSError, match="Not a directory"):
        root.mkdir(parents=True)
    assert home(Path("/else"), "x") == Path("/else")
    monkeypatch.setenv("SUBNETBENCH_DATA", "/data")
    assert default_data_root() == Path("/data")
