"""What reaches the terminal, and what the command line makes of errors."""

import io
import os
import subprocess
import sys

import pytest

from subnetbench.harness.cli.output import SafeOutput, printable
from subnetbench.harness.core.errors import UserError

HOSTILE = {
    "\x1b]0;title\x07": "?]0;title?",
    "\x1b]52;c;aGk=\x07": "?]52;c;aGk=?",
    "\x1b[2J\x1b[1;1H": "?[2J?[1;1H",
    "a\rb\x08c\x9b31m": "a?b?c?31m",
    "\u202egpj.exe": "?gpj.exe",
    "\x1b[1mbold\x1b[0m\tä\n": "\x1b[1mbold\x1b[0m\tä\n",
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_control_characters_are_shown_as_question_marks(text, shown):
    assert printable(text) == shown
    stream = io.StringIO()
    safe = SafeOutput(stream)
    assert safe.write(text) == len(text)
    safe.writelines([text, "x"])
    assert stream.getvalue() == shown * 2 + "x"
    assert not safe.isatty()


def called(*arguments, **options):
    code = "from subnetbench.harness.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)


def test_names_from_files_reach_the_terminal_without_their_escapes(tmp_path):
    (tmp_path / "x.yaml").write_text('name: x\nruns: [{method: "\\e]0;owned\\a", dataset: emoji}]\n')
    done = called("sweep", tmp_path / "x.yaml", "--dry-run", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "owned" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_errors_of_the_system_name_the_file_in_one_line(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "x.parquet").symlink_to(tmp_path / "records" / "x.parquet")
    os.mkfifo(tmp_path / "pipe.yaml")
    done = called("sweep", tmp_path / "pipe.yaml", "--dry-run")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pipe.yaml" in done.stderr


FAULT = """
import sys
from subnetbench.harness import api, cli
def broken(*args, **options):
    raise {error}
api.doctor = broken
sys.argv = ["subnetbench", "doctor", *{options}]
cli.main()
"""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("KeyError('x' * 1000)", "error: a fault of subnetbench, not of yours: KeyError: 'xxx"),
        ("PermissionError(13, 'Permission denied', '/some/file')", "error: /some/file: Permission denied"),
        ("RecursionError('too\\ndeep')", "error: a fault of subnetbench, not of yours: RecursionError: too deep"),
        ("MemoryError()", "error: there is not enough memory"),
    ],
)
def test_other_errors_are_one_line_and_a_traceback_on_request(error, line):
    for options in ([], ["--verbose"]):
        code = FAULT.format(error=error, options=options)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 1
        lines = done.stderr.splitlines()
        assert lines[-1].startswith(line)
        assert len(lines[-1]) < 320
        assert ("Traceback (most recent call last):" in lines) == bool(options)
        assert options or len(lines) == 1


def test_long_values_are_cut():
    assert len(str(UserError("is wrong", field="x", value="y" * 10_000))) < 260
