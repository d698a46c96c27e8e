"""The method of docs/add_a_method.md passes the conformance suite, through the command that users run."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = Path(sys.executable).with_name("subnetbench")


def test_the_documented_method_conforms(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "add_a_method.md").read_text(), re.DOTALL)
    file = tmp_path / "small_start.py"
    file.write_text(code)
    done = subprocess.run(
        [PROGRAM, "check", file], capture_output=True, text=True, cwd=tmp_path, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok") >= 7


def test_a_method_that_breaks_the_rules_is_told_which(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "add_a_method.md").read_text(), re.DOTALL)
    file = tmp_path / "broken.py"
    file.write_text(
        code.replace('"small_start"', '"broken"').replace("masked.finalise().eval()", "masked.finalise().train()")
    )
    done = subprocess.run(
        [PROGRAM, "check", file], capture_output=True, text=True, cwd=tmp_path, timeout=280, check=False
    )
    assert done.returncode == 1
    assert "must be in evaluation mode" in done.stdout
