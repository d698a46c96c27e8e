"""Commands that only look: `status`, `logs`, `methods`, `datasets`, `doctor`. None of them trains."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from subnetbench.harness.cli.common import DataRoot, Json, conditions, data_root, print_json, print_table
from subnetbench.harness.errors import UserError

GOING_ON = ("running", "queued", "starting", "stopping", "waiting for input", "stale")
SCHEDULER_SECONDS = 15.0


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
    from subnetbench.harness.launchers.slurm.states import QueueWatch
    from subnetbench.harness.run_status import collect, summary

    queue = QueueWatch()
    while True:
        rows = collect(_results_folders(folders))
        on_slurm = queue.look_at_all(rows)
        if json_:
            print_json(rows)
        else:
            columns = ["run", "state", "stage", "epoch", "rate", "seconds", *["job"] * on_slurm, "detail"]
            print_table(columns, ([row.get(column, "") for column in columns] for row in rows))
            typer.echo(summary(rows))
        for note in queue.take_notes():
            typer.echo(note, err=True)
        if not watch or not any(row["state"] in GOING_ON for row in rows):
            return
        time.sleep(SCHEDULER_SECONDS if on_slurm else 2)


def logs(
    run: Annotated[str, typer.Argument(help="Run id, or the beginning of one; `driver` is a tuning's driver job.")],
    out: Annotated[Path | None, typer.Option("--out", help="Results folder [default: all in results/].")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Last lines to print.")] = 50,
) -> None:
    """The end of a run's log, and why it failed if it did.

    Example: `subnetbench logs edge_popup-emoji-s1 --out results/quickstart`
    """
    from subnetbench.harness.errors import unknown
    from subnetbench.harness.launchers.slurm.states import job_log_of
    from subnetbench.harness.run_status import folders_of

    folders = [folder for results in _results_folders([out] if out else None) for folder in folders_of(results)]
    found = [folder for folder in folders if folder.run_id.startswith(run)]
    if not found:
        raise unknown("run", run, [folder.run_id for folder in folders])
    for folder in found:
        typer.echo(f"--- {folder.run_id} ({folder.state()})")
        if folder.log_file.exists():
            text = folder.log_file.read_text(errors="replace").splitlines()
            typer.echo("\n".join(text[-lines:]))
        failure = folder.failure()
        if failure:
            typer.echo(f"{failure.get('reason')}: {failure.get('message')}")
        job_log = job_log_of(folder)
        if job_log is not None:
            typer.echo(f"log of its last job: {job_log}")
            if not folder.log_file.exists():
                typer.echo("\n".join(job_log.read_text(errors="replace").splitlines()[-lines:]))


def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method's config.")] = None, json_: Json = False
) -> None:
    """List the methods; with a name, its config with defaults, bounds, search space, and its paper.

    Example: `subnetbench methods edge_popup`
    """
    if name is None:
        _list("method", json_)
        return
    from subnetbench.harness.registry import get_method

    method = get_method(name)
    facts = {"name": name, "tasks": list(method.tasks), "paper": method.paper, "about": _doc(method)}
    _show_config(facts, method.Config, json_)


def datasets(
    action: Annotated[
        str | None, typer.Argument(help="A data set's name to show it, or `check` or `fetch` before a name.")
    ] = None,
    name: Annotated[str | None, typer.Argument(help="Data set, after `check` or `fetch`.")] = None,
    data: Annotated[list[str] | None, typer.Option("--data", help="Data set field, e.g. `--data size=96`.")] = None,
    root: DataRoot = None,
    json_: Json = False,
) -> None:
    """List the data sets; show one; check that its files are complete; fetch one that may be fetched.

    Examples: `subnetbench datasets emoji`, `subnetbench datasets check cifar10`,
    `subnetbench datasets fetch emoji --data variant=full --data size=96`
    """
    if action is None:
        _list("dataset", json_)
        return
    from subnetbench.harness.registry import get_dataset

    if action not in ("check", "fetch"):
        dataset = get_dataset(action)
        facts = {
            "name": action,
            "tasks": list(dataset.tasks),
            "licence": dataset.licence,
            "citation": dataset.citation,
            "source": dataset.source,
            "about": _doc(dataset),
        }
        _show_config(facts, dataset.Config, json_)
        return
    if name is None:
        raise UserError("a data set must be named", field=f"datasets {action}")
    from subnetbench.harness.cli.common import assignments

    dataset = get_dataset(name)
    instance = dataset(dataset.Config.parse(assignments(data, "--data"), where="data"), data_root(root))
    if action == "fetch":
        typer.echo(f"{name}: {instance.fetch()}")
        return
    problems = instance.problems()
    for problem in problems:
        typer.echo(f"{name}: {problem}", err=True)
    if problems:
        raise typer.Exit(1)
    for task in instance.tasks:
        loaded = instance.load(task)
        sizes = f"train {len(loaded.train)}, validation {len(loaded.validation)}, test {len(loaded.test)}"
        typer.echo(f"{name} {task}: {sizes}; {loaded.protocol}; digest {loaded.digest}")


def doctor(json_: Json = False, root: DataRoot = None) -> None:
    """Versions, devices, faiss flavour, SLURM, and whether the folders can be written.

    Example: `subnetbench doctor`
    """
    from subnetbench.harness.doctor import examine

    findings = examine(data_root(root))
    if json_:
        print_json([finding.__dict__ for finding in findings])
    else:
        rows = [(finding.name, "ok" if finding.ok else "!", finding.detail) for finding in findings]
        print_table(("what", "", "found"), rows)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _list(kind: Any, as_json: bool) -> None:
    from subnetbench.harness.registry import listing

    entries = listing(kind)
    if as_json:
        print_json([entry.__dict__ for entry in entries])
    else:
        rows = [(e.name, e.summary, "" if e.origin == "built in" else e.origin) for e in entries]
        print_table((kind, "what it is", "from"), rows)


def _show_config(facts: dict[str, Any], config: Any, as_json: bool) -> None:
    fields = list(config.describe())
    if as_json:
        print_json({**facts, "config": fields})
        return
    for label, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else value
        if text:
            typer.echo(f"{label + ':':10} {text}")
    typer.echo("")
    rows = [
        (
            field["name"] + ("*" if field["operating_point"] else ""),
            field["type"],
            field["default"],
            field["allowed"],
            _search(field),
            field["help"],
        )
        for field in fields
    ]
    print_table(("field", "type", "default", "allowed", "search", "what it does"), rows)
    typer.echo("* operating point: moves along the cost axis; fixed in a single-objective search")


def _search(field: dict[str, Any]) -> str:
    return " where ".join(part for part in (field["search"], conditions(field["searched_when"].items())) if part)


def _doc(cls: type) -> str:
    import inspect

    return inspect.cleandoc(cls.__doc__ or "")


def _results_folders(given: list[Path] | None) -> list[Path]:
    folders = given or [path for path in sorted(Path("results").glob("*")) if (path / "runs").is_dir()]
    for folder in folders:
        if not folder.is_dir():
            raise UserError("there is no such folder", field="FOLDER", value=str(folder))
    # A tuning keeps its trials apart from its final runs.
    trials = [path for folder in folders if (path := folder / "trials").is_dir() and (path / "runs").is_dir()]
    return [*folders, *(path for path in trials if path not in folders)]


def add_commands(app: typer.Typer) -> None:
    for command in (status, logs, methods, datasets, doctor):
        app.command()(command)
