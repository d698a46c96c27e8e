"""The command that searches: `tune`."""

import time
from typing import Annotated, Any, Literal

import typer

from subnetbench.harness import api
from subnetbench.harness.cli.boards import print_board
from subnetbench.harness.cli.common import (
    ClusterName,
    CodeChanges,
    Data,
    DataRoot,
    Items,
    On,
    Results,
    RunsPerGpu,
    Set,
    Tracker,
    assignments,
    conditions,
    note,
    print_table,
)
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.written import parse_value

Yaml = list[str] | None


def tune(
    file_or_method: Annotated[str, typer.Argument(metavar="FILE | METHOD", help="Tuning file, or a method.")],
    dataset: Annotated[str | None, typer.Argument(help="Data set, after a method.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Target number of completed trials a study.")] = None,
    device_hours: Annotated[float | None, typer.Option(help="Or target hours of devices a study.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time [default: GPUs or cores; 8 on slurm].")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, cmaes, gp, random, grid, qmc or nsga2.")] = None,
    pruner: Annotated[str | None, typer.Option(help="none, median, hyperband, asha or wilcoxon.")] = None,
    objective: Annotated[
        Yaml, typer.Option("--objective", help="quality, cost, or a metric; repeatable [default: quality].")
    ] = None,
    constraint: Annotated[
        Yaml, typer.Option("--constraint", help="A bound, e.g. `--constraint 'parameters<=100000'`.")
    ] = None,
    set_: Set = None,
    search: Annotated[
        Yaml, typer.Option("--search", help="Space of a field, e.g. `--search 'lr={log: [0.001, 1]}'`.")
    ] = None,
    data: Data = None,
    enqueue: Annotated[
        Yaml, typer.Option("--enqueue", help="Configuration to try first, e.g. `--enqueue '{lr: 0.1}'`.")
    ] = None,
    warm_start: Annotated[
        Yaml, typer.Option("--warm-start", help="Earlier study to learn from: STORAGE or STORAGE#STUDY.")
    ] = None,
    inputs_follow: Annotated[
        bool, typer.Option("--inputs-follow", help="Train the teacher for each trial's config, instead of one for all.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the proposals.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Ranks of each run.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="SUBNETBENCH_STORAGE", help="Journal file, or postgresql://... [default: study.log in the results]."
        ),
    ] = None,
    out: Results = None,
    data_root: DataRoot = None,
    runs_per_gpu: RunsPerGpu = 1,
    tracker: Tracker = None,
    items: Items = True,
    no_final: Annotated[bool, typer.Option("--no-final", help="Do not retrain the best; leave the test set.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be searched and start nothing.")] = False,
    on: On = "here",
    driver: Annotated[
        Literal["slurm", "here"],
        typer.Option("--driver", help="With `--on slurm`: the driver is a job too, or stays in this shell."),
    ] = "slurm",
    cluster: ClusterName = None,
    code_changes: CodeChanges = "refuse",
) -> None:
    """Search hyper-parameters on validation data, retrain the best with fresh seeds; again, it resumes.

    Examples: `subnetbench tune edge_popup emoji --trials 20 --workers 2 --set epochs=4`,
    `subnetbench tune search.yaml --on slurm --cluster mysite`
    """
    compute = {"processes": processes, "device": device} if dataset or processes != 1 or device != "auto" else None
    result = api.tune(
        file_or_method,
        dataset,
        results=out,
        storage=storage,
        workers=workers,
        runs_per_gpu=runs_per_gpu,
        data_root=data_root,
        trackers=tracker,
        items=items,
        final=not no_final,
        dry_run=dry_run,
        on=on,
        driver=driver,
        cluster=cluster,
        code_changes=code_changes,
        progress=lambda line: note(f"{time.strftime('%H:%M:%S')} {line}"),
        trials=trials,
        device_hours=device_hours,
        sampler=sampler,
        pruner=pruner,
        seed=seed,
        objectives=objective,
        constraints=constraint,
        config=assignments(set_, "--set"),
        space=assignments(search, "--search"),
        data=assignments(data, "--data"),
        compute=compute,
        enqueue=[_mapping(text) for text in enqueue or []],
        warm_start=warm_start,
        inputs_follow=inputs_follow,
    )
    if result.status == "planned":
        _print_spaces(result)
    elif result.driver_job:
        _print_driver(result)
    else:
        if on == "slurm":
            typer.echo(f"nothing is left to do; results in {result.path}")
        _print_end(result)
        if result.status != "complete":
            raise typer.Exit(1)


def _print_driver(result: "api.TuneResult") -> None:
    said = "submitted" if result.status == "submitted" else f"{result.driver_state} already; nothing was submitted"
    typer.echo(f"the driver is job {result.driver_job}, {said}; results in {result.path}")
    for what, command in (
        ("how it stands", f"status {result.path} --watch"),
        ("its log", f"logs driver --out {result.path}"),
        ("to stop it", f"cancel {result.path}"),
    ):
        typer.echo(f"{what + ':':14} subnetbench {command}")


def _print_end(result: "api.TuneResult") -> None:
    rows: list[tuple[object, ...]] = []
    for study in result.studies:
        for trial in study.best:
            values = ", ".join(f"{metric} {value:.6g}" for metric, value in trial.values.items())
            config = ", ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
            rows.append((study.label, trial.number, values, config))
        if not study.best:
            rows.append((study.label, "-", "nothing found", study.stopped or ""))
    print_table(("study", "trial", "validation", "configuration"), rows, title="best configurations")
    _print_notes(result)
    if result.gains:
        shown = [
            (
                g.study,
                g.metric,
                f"{g.default:.4f}",
                f"{g.tuned:.4f}",
                f"{g.difference:+.4f} [{g.low:+.4f}, {g.high:+.4f}]",
                g.seeds,
                g.default_failed + g.tuned_failed,
                g.trials,
                f"{g.device_hours:.3f}",
            )
            for g in result.gains
        ]
        columns = (
            "study",
            "metric",
            "default",
            "tuned",
            "tuned - default",
            "seeds",
            "failed",
            "trials",
            "device hours",
        )
        print_table(columns, shown, title="on the test set, paired by seed, 95 % intervals over seeds")
        for gain in (g for g in result.gains if g.failed):
            typer.echo(f"{gain.study}: seeds without a pair are left out of the means ({gain.failed})")
    if result.final_runs:
        print_board(result.path)
    note(f"\nfiles: {result.path}")
    if result.status == "interrupted":
        note("interrupted; the same command resumes where it stopped", err=True)
    failed = [run_id for run_id, status in result.final_runs.items() if status not in ("finished", "interrupted")]
    for run_id in failed:
        typer.echo(f"failed: {run_id}; see `subnetbench logs {run_id} --out {result.path}`", err=True)


def _print_notes(result: "api.TuneResult") -> None:
    for study in result.studies:
        for text in study.notes:
            typer.echo(f"{study.label}: {text}")


def _print_spaces(result: "api.TuneResult") -> None:
    rows = [
        (study.label, dimension.name, _distribution(dimension.distribution), conditions(dimension.when))
        for study in result.studies
        for dimension in study.space.dimensions
    ]
    print_table(("study", "field", "searched in", "where"), rows)
    _print_notes(result)
    studies = len(result.studies)
    typer.echo(f"1 study of {result.budget}" if studies == 1 else f"{studies} studies of {result.budget} each")


def _distribution(distribution: Any) -> str:  # open: any distribution of Optuna
    if hasattr(distribution, "choices"):
        return ", ".join(map(str, distribution.choices))
    step = f", step {distribution.step}" if distribution.step not in (None, 1) else ""
    return f"{distribution.low} to {distribution.high}" + (" (log)" if distribution.log else "") + step


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _mapping(text: str) -> dict[str, Any]:  # open: parsed by a config later
    value = parse_value(text, "--enqueue")
    if not isinstance(value, dict):
        raise UserError("must be a mapping, e.g. {lr: 0.1}", field="--enqueue", value=text)
    return value
