"""Commands that only look: `status`, `logs`, `methods`, `datasets`, `doctor`. None of them trains."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from subnetbench.harness import api
from subnetbench.harness.cli.common import DataRoot, Json, assignments, conditions, note, print_json, print_table
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.registry import Entry


def status(
    folders: Annotated[list[Path] | None, typer.Argument(help="Results folders [default: all in results/].")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show again and again until nothing runs or is queued.")
    ] = False,
    json_: Json = False,
) -> None:
    """Where every run stands: queued, waiting, running with its epoch, finished, failed with the error.

    Example: `subnetbench status results/quickstart --watch`
    """
    for shown in api.watch(folders) if watch else [api.status(folders)]:
        rows = [row.to_json() for row in shown.rows]
        if json_:
            print_json(rows)
        else:
            columns = ["run", "state", "stage", "epoch", "rate", "seconds", *["job"] * shown.on_slurm, "detail"]
            print_table(columns, ([row[column] for column in columns] for row in rows))
            note(shown.summary())
        for line in shown.notes:
            typer.echo(line, err=True)


def logs(
    run: Annotated[str, typer.Argument(help="Run id, or the beginning of one; `driver` is a tuning's driver job.")],
    out: Annotated[Path | None, typer.Option("--out", help="Results folder [default: all in results/].")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Last lines to print.")] = 50,
) -> None:
    """The end of a run's log, and why it failed if it did.

    Example: `subnetbench logs edge_popup-emoji-s1 --out results/quickstart`
    """
    for log in api.logs(run, results=out):
        typer.echo(f"--- {log.run_id} ({log.state})")
        for text in (log.tail(lines), log.failure):
            if text:
                typer.echo(text)
        if log.job_log is not None:
            note(f"log of its last job: {log.job_log}")


def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method's config.")] = None, json_: Json = False
) -> None:
    """List the methods; with a name, its config with defaults, bounds, search space, and its paper.

    Example: `subnetbench methods edge_popup`
    """
    if name is None:
        _print_entries("method", api.methods(), json_)
        return
    found = api.describe_method(name)
    about = {"name": found.name, "tasks": found.tasks, "paper": found.paper, "about": found.about}
    _print_description(about, found.config, json_)


def datasets(
    action: Annotated[
        str | None, typer.Argument(help="A data set's name to show it, or `check` or `fetch` before a name.")
    ] = None,
    name: Annotated[str | None, typer.Argument(help="Data set, after `check` or `fetch`.")] = None,
    data: Annotated[list[str] | None, typer.Option("--data", help="Data set field, e.g. `--data size=96`.")] = None,
    root: DataRoot = None,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="With `check`: test images of which a training image is nearly a copy.")
    ] = False,
    threshold: Annotated[float, typer.Option(help="Cosine above which two images are nearly the same.")] = 0.9,
    size: Annotated[int, typer.Option(help="Side in pixels of the renderings that are compared.")] = 32,
    limit: Annotated[int, typer.Option(help="Pairs to list, the worst first.")] = 20,
    json_: Json = False,
) -> None:
    """List the data sets; show one; check that its files are complete; fetch one that may be fetched.

    Examples: `subnetbench datasets emoji`, `subnetbench datasets check cifar10`,
    `subnetbench datasets check emoji --data split=near_duplicates`,
    `subnetbench datasets check emoji --duplicates --threshold 0.95`,
    `subnetbench datasets fetch emoji --data variant=full --data size=96`
    """
    if duplicates and action != "check":
        raise UserError("belongs to `datasets check NAME`", field="--duplicates")
    if action is None:
        _print_entries("dataset", api.datasets(), json_)
    elif action not in ("check", "fetch"):
        found = api.describe_dataset(action)
        names = ("name", "tasks", "licence", "citation", "source", "about")
        _print_description({each: getattr(found, each) for each in names}, found.config, json_)
    elif name is None:
        raise UserError("a data set must be named", field=f"datasets {action}")
    elif action == "fetch":
        typer.echo(f"{name}: {api.fetch_dataset(name, data=assignments(data, '--data'), data_root=root)}")
    elif duplicates:
        fields = assignments(data, "--data")
        copies = api.find_duplicates(name, data=fields, data_root=root, threshold=threshold, size=size, limit=limit)
        if json_:
            print_json([each.to_json() for each in copies])
        else:
            _print_duplicates(name, copies)
    else:
        checks = api.check_dataset(name, data=assignments(data, "--data"), data_root=root)
        if json_:
            print_json([dataclasses.asdict(each) for each in checks])
            return
        for each in checks:
            sizes = f"train {each.train}, validation {each.validation}, test {each.test}"
            typer.echo(f"{name} {each.task}: {sizes}; {each.protocol}; digest {each.digest}")


def _print_duplicates(name: str, found: "Sequence[api.Duplicates]") -> None:
    for each in found:
        of = f"{each.above} of {each.test} test images have a near-duplicate among {each.training} training images"
        typer.echo(f"{name} {each.task}: {of} (cosine above {each.threshold:g} at {each.size} pixels; {each.protocol})")
        if each.blank:
            typer.echo(f"{each.blank} test images are of one colour and were compared with nothing", err=True)
        rows = [
            (f"{pair.similarity:.4f}", pair.split, pair.file or pair.index, pair.label, pair.training_file or pair.training_index, pair.training_label)
            for pair in each.pairs
        ]  # fmt: skip
        if rows:
            print_table(("cosine", "split", "image", "class", "training image", "its class"), rows)
        if each.above > len(each.pairs):
            note(f"{each.above - len(each.pairs)} more pairs: raise --limit")


def doctor(json_: Json = False, root: DataRoot = None) -> None:
    """Versions, devices, faiss flavour, SLURM, and whether the folders can be written.

    Example: `subnetbench doctor`
    """
    findings = api.doctor(root)
    if json_:
        print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        rows = [(finding.name, "ok" if finding.ok else "!", finding.detail) for finding in findings]
        print_table(("what", "", "found"), rows)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _print_entries(kind: str, entries: Sequence[Entry], as_json: bool) -> None:
    if as_json:
        print_json([dataclasses.asdict(entry) for entry in entries])
    else:
        rows = [(e.name, e.summary, "" if e.origin == "built in" else e.origin) for e in entries]
        print_table((kind, "what it is", "from"), rows)


def _print_description(
    about: Mapping[str, str | Sequence[str]], fields: "Sequence[api.ConfigField]", as_json: bool
) -> None:
    if as_json:
        print_json({**about, "config": [dataclasses.asdict(field) for field in fields]})
        return
    for label, value in about.items():
        text = value if isinstance(value, str) else ", ".join(value)
        if text:
            typer.echo(f"{label + ':':10} {text}")
    typer.echo("")
    rows = [(f.name + "*" * f.operating_point, f.type, f.default, f.allowed, _search(f), f.help) for f in fields]
    print_table(("field", "type", "default", "allowed", "search", "what it does"), rows)
    note("* operating point: moves along the cost axis; fixed in a single-objective search")


def _search(field: "api.ConfigField") -> str:
    return " where ".join(part for part in (field.search, conditions(field.searched_when.items())) if part)
