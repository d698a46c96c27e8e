"""What commands print with `--verbose`, with `--quiet`, and with neither."""

import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from subnetbench.harness import api
from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError

COMMANDS = [str(command.name or command.callback.__name__) for command in app.registered_commands]


@pytest.fixture
def talkative(monkeypatch):
    """`clean` as a function that logs a line at each level, and removes one file."""

    def clean(folder, **options):
        logger = logging.getLogger("subnetbench.harness.api.cleaning")
        for level in (logging.DEBUG, logging.WARNING, logging.ERROR):
            logger.log(level, "a line")
        return [api.Removed(Path("file"), 1_000_000)]

    monkeypatch.setattr(api, "clean", clean)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_both_options(command):
    text = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    assert "--verbose" in text
    assert "--quiet" in text


def test_warnings_are_shown_by_default(talkative):
    done = CliRunner().invoke(app, ["clean", "."])
    assert done.stderr == "WARNING: a line\nERROR: a line\n"
    assert done.stdout == "removed file (1.0 MB)\nremoved 1 files, 1.0 MB\n"


def test_verbose_shows_everything_with_times(talkative):
    done = CliRunner().invoke(app, ["clean", ".", "--verbose"])
    assert [line.split(" ", 2)[2] for line in done.stderr.splitlines()] == [
        "DEBUG subnetbench.harness.api.cleaning: a line",
        "WARNING subnetbench.harness.api.cleaning: a line",
        "ERROR subnetbench.harness.api.cleaning: a line",
    ]


def test_quiet_keeps_errors_and_the_result(talkative):
    done = CliRunner().invoke(app, ["clean", ".", "-q"])
    assert done.stderr == "ERROR: a line\n"
    assert done.stdout == "removed 1 files, 1.0 MB\n"
    assert len(CliRunner().invoke(app, ["clean", "."]).stdout.splitlines()) == 2


def test_both_together_are_refused(talkative):
    done = CliRunner().invoke(app, ["clean", ".", "-q", "-v"])
    assert isinstance(done.exception, UserError)
    assert "--quiet" in str(done.exception)
