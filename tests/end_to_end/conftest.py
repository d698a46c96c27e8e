"""End-to-end tests run the program as its users do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("subnetbench")


@pytest.fixture
def subnetbench(tmp_path):
    """Run the program in an empty folder; returns the finished process with its output as text."""

    def run(*arguments, check=0, **options):
        command = [str(PROGRAM), *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "200", **options.pop("env", {})}
        options.setdefault("timeout", 250)
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, **options
        )
        if check is not None:
            assert done.returncode == check, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def start(tmp_path):
    """Start the program in the background in a process group of its own."""
    started = []

    def run(*arguments):
        with open(tmp_path / "output.txt", "a") as output:
            process = subprocess.Popen(
                [str(PROGRAM), *map(str, arguments)],
                cwd=tmp_path,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.wait()
