"""Pages of the site that are generated while it is built, and so cannot go stale: start, project files, commands, API.

Named under `hooks` in mkdocs.yml.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from subnetbench.harness.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "https://github.com/subnetbench/subnetbench/blob/main"
PROJECT_FILES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
PROJECT_FILES |= {"CHANGELOG.md": "changelog.md"}
# Packages with a page of their own, and how it is called. Contracts and what people call come first.
API = {
    "harness.api": "Commands from Python",
    "harness.method": "Contract of methods",
    "harness.data": "Contract of data sets",
    "harness.testing": "Testing plug-ins",
    "harness.leaderboard": "Leaderboards",
    "harness.records": "Records",
    "harness.report": "Reports",
    "harness.evaluation": "Evaluation",
    "harness.runs": "Runs",
    "harness.training": "Training",
    "harness.execution": "Execution",
    "harness.tuning": "Tuning",
    "harness.distributed": "Processes and devices",
    "harness.core": "Core",
    "methods.parts": "Parts of methods",
    "datasets.parts": "Parts of data sets",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the pages that are generated to the navigation."""
    assert config.nav is not None
    sections = {title: pages for entry in config.nav for title, pages in entry.items()}
    sections["Reference"].append({"Python": [{title: api_path(package)} for package, title in API.items()]})
    sections["Project"] += [{path.removesuffix(".md").title(): path} for path in list(PROJECT_FILES.values())[1:]]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = {"reference/cli.md": command_reference()}
    pages |= {api_path(package): api_page(package) for package in API}
    pages |= {path: project_page(name) for name, path in PROJECT_FILES.items()}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def project_page(name: str) -> str:
    """A file of the repository root, its links turned to pages of the site, or to the repository where there is none."""

    def turned(match: re.Match[str]) -> str:
        path, _, anchor = match[1].partition("#")
        page = PROJECT_FILES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        return f"]({page or f'{REPOSITORY}/{path}'}{'#' + anchor if anchor else ''})"

    return re.sub(r"\]\((?!https?:|#)([^)]+)\)", turned, (ROOT / name).read_text())


def api_path(package: str) -> str:
    return f"reference/{package.replace('.', '_')}.md"


def api_page(package: str) -> str:
    """What a package exports where it says so, else the public names of each of its modules."""
    lines = [f"# {API[package]}", ""]
    for name in documented(ROOT / package.replace(".", "/")):
        lines += [f"::: subnetbench.{name}", *shown(name), ""]
    return "\n".join(lines)


def shown(name: str) -> list[str]:
    """Options of a package's entry: all that it exports, wherever that is defined."""
    names = exports(ROOT / name.replace(".", "/"))
    return ["    options:", f"      members: [{', '.join(names)}]"] if names else []


def exports(folder: Path) -> list[str]:
    """`__all__` of a package; empty for one without, and for a module."""
    if not (folder / "__init__.py").exists():
        return []
    for node in ast.parse((folder / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return sorted(ast.literal_eval(node.value))
    return []


def documented(folder: Path) -> Iterator[str]:
    """Dotted names below `subnetbench` of the modules whose members a page shows."""
    yield ".".join(folder.relative_to(ROOT).parts)
    if exports(folder):
        return
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.is_dir() and (path / "__init__.py").exists():
            yield from documented(path)
        elif path.suffix == ".py" and not path.name.startswith("_"):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts)


def command_reference() -> str:
    """Every command with its arguments and options, as the program declares them."""
    root = typer.main.get_command(app)
    lines = ["# Command line", "", "`subnetbench COMMAND --help` shows the same.", "", "## Global options", ""]
    lines += parameters(root)
    for name, command in sorted(getattr(root, "commands", {}).items()):
        lines += ["", f"## subnetbench {name}", "", help_text(command), ""]
        pieces = (piece for parameter in command.params for piece in usage(parameter))
        lines += ["```text", " ".join(["subnetbench", name, *pieces, "[OPTIONS]"]), "```", "", *parameters(command)]
    return "\n".join(lines) + "\n"


def help_text(command: Any) -> str:
    """The docstring of a command. Typer keeps it as Markdown, with `\\b` before parts that are not to be wrapped."""
    return (command.help or "").replace("\b", "").strip()


def usage(parameter: Any) -> Iterator[str]:
    if parameter.param_type_name == "argument":
        name = parameter.name.upper() + ("..." if parameter.nargs == -1 else "")
        yield name if parameter.required else f"[{name}]"


def parameters(command: Any) -> list[str]:
    rows = [row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
    return ["| argument or option | meaning | default |", "|---|---|---|", *rows] if rows else []


def row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = f"`{parameter.name.upper()}`"
    else:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|").replace("[", "\\[")
    if getattr(parameter, "multiple", False):
        text += " May be given several times."
    if getattr(parameter, "envvar", None):
        text += f" Environment: `{parameter.envvar}`."
    return f"| {names} | {text} | {default_of(parameter)} |"


def default_of(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if default is None or callable(default) or default in ("", [], (), False):
        return ""
    return f"`{default}`"
