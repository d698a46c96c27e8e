"""Code in the documentation works: it is run where that takes seconds, and its commands are parsed everywhere.

Each block of Python or shell is run by `test_blocks_run`, page by page, in one folder with made-up results, unless the
line before it says why not: `<!-- not run: REASON -->`, or `<!-- run by: FILE -->` for another test.
"""

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from subnetbench.harness.cli.app import app
from subnetbench.harness.execution.slurm.profile import read_cluster
from subnetbench.harness.execution.sweep_file import read_sweep
from subnetbench.harness.tuning.tuning_file import read_tuning_file

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LANGUAGES = {"json", "pycon", "python", "shell", "sql", "text", "yaml"}
COMMANDS = typer.main.get_command(app)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    content: str
    not_run: str
    """The marker before the block, or nothing."""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def lines(self) -> Iterator[list[str]]:
        """Words of each shell command, without comments."""
        for line in self.content.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text().splitlines()
    opened = None
    for number, line in enumerate(lines):
        if opened is None and line.startswith("```"):
            opened = number
        elif opened is not None and line == "```":
            before = re.fullmatch(r"<!-- ((?:not run|run by): .+) -->", lines[opened - 1])
            content = "\n".join(lines[opened + 1 : number]) + "\n"
            yield Block(page, opened + 1, lines[opened].removeprefix("```"), content, before[1] if before else "")
            opened = None
    assert opened is None, f"{page}: the block of line {opened} does not end"


BLOCKS = {page: list(blocks(page)) for page in PAGES}
EVERY_BLOCK = [block for page in PAGES for block in BLOCKS[page]]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, samples: ModuleType) -> Path:
    """A folder as the pages assume it: the sweep files, and results under the names that they use."""
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "sweeps").symlink_to(ROOT / "sweeps")
    for name in ("quickstart", "main", "branch", "example"):
        samples.classification(samples.Results(folder / "results" / name), np.random.default_rng(0))
    return folder


def test_blocks_have_a_language() -> None:
    assert [block.where for block in EVERY_BLOCK if block.language not in LANGUAGES] == []


def test_tests_that_run_blocks_exist() -> None:
    named = {block.not_run.removeprefix("run by: ") for block in EVERY_BLOCK if block.not_run.startswith("run by")}
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCKS[page]], ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    """Commands, options and sweep files exist, also in blocks that are not run."""
    for block in BLOCKS[page]:
        if block.language != "shell":
            continue
        for words in block.lines:
            if words[0] != "subnetbench":
                continue
            rest, command = parse(COMMANDS, words[1:], block)
            parse(getattr(COMMANDS, "commands", {})[command], rest, block)
            for word in words:
                if word.startswith("sweeps/"):
                    assert (ROOT / word).is_file(), f"{block.where}: {word}"


def test_yaml_blocks_are_what_they_say(tmp_path: Path) -> None:
    """Sweep files, tuning files and cluster profiles pass the readers of the program; fragments of them are YAML."""
    read = Counter[str]()
    for block in EVERY_BLOCK:
        if block.language != "yaml":
            continue
        content = yaml.safe_load(block.content)
        file = tmp_path / "block.yaml"
        file.write_text(block.content)
        kind = "fragment"
        if "name" in content and "runs" in content:
            kind, _ = "sweep", read_sweep(file).expand()
        elif "name" in content and "methods" in content:
            kind, _ = "tuning", read_tuning_file(file)
        elif "partition" in content:
            kind, _ = "profile", read_cluster(str(file))
        read[kind] += 1
    assert read["sweep"] >= 1
    assert read["tuning"] >= 1
    assert read["profile"] >= 1


def parse(command: Any, words: list[str], block: Block) -> tuple[list[str], str]:
    """What the options of `command` leave: the words after a subcommand, and its name."""
    context = command.context_class(command)
    context.allow_interspersed_args = command is not COMMANDS
    try:
        _, rest, _ = command.make_parser(context).parse_args(list(words))
    except Exception as error:
        pytest.fail(f"{block.where}: {' '.join(words)}: {error}")
    return (rest[1:], rest[0]) if command is COMMANDS else ([], "")


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if any(block.language in ("python", "shell") and not block.not_run for block in BLOCKS[page])
    ],
    ids=lambda page: page.name,
)
def test_blocks_run(page: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    names: dict[str, Any] = {}
    for block in BLOCKS[page]:
        if block.not_run:
            continue
        if block.language == "python":
            exec(compile("\n" * block.line + block.content, str(page), "exec"), names)
        elif block.language == "shell":
            for words in block.lines:
                assert words[0] == "subnetbench", f"{block.where}: only this program's commands are run"
                result = CliRunner().invoke(app, words[1:])
                assert result.exit_code == 0, f"{block.where}: {words}\n{result.output}\n{result.exception!r}"
