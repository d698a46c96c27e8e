"""Ranks as processes: what they take over from the process that starts them, and what not."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from subnetbench import run

print("the script begins")
config = {"network": "conv2", "image_size": 8, "epochs": 1, "limit_steps": 1}
print(run("dense", "emoji", config=config, results="here").status)
"""


@pytest.mark.slow
def test_a_script_without_a_guard_can_start_runs(tmp_path: Path) -> None:
    """Multiprocessing would import the script in each rank, which would start the run again."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == ["the script begins", "finished"]
