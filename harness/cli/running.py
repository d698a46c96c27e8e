"""Commands that run: `run`, `sweep`, `clean`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypedDict

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
    Rerun,
    Results,
    RetryFailed,
    RunsPerGpu,
    Set,
    Tracker,
    assignments,
    note,
    print_table,
    quiet,
)
from subnetbench.harness.cli.curves import print_matrices
from subnetbench.harness.cli.progress import ProgressDisplay
from subnetbench.harness.cli.slurm import print_submission

Input = Annotated[
    list[str] | None,
    typer.Option("--input", help="An input by role, e.g. `--input teacher={run: ID}`.", show_default=False),
]
Processes = Annotated[int, typer.Option("--processes", min=1, help="Ranks of the run: GPUs, or gloo on the CPU.")]


class _Launch(TypedDict):
    """What `run` and `sweep` hand over alike."""

    data_root: Path | None
    trackers: list[str] | None
    items: bool
    retry_failed: bool
    rerun: bool
    dry_run: bool
    on: Literal["here", "slurm"]
    cluster: str | None
    code_changes: Literal["refuse", "allow"]


def run(
    method: Annotated[str, typer.Argument(help="Name of a method (see `subnetbench methods`).")],
    dataset: Annotated[str, typer.Argument(help="Name of a data set (see `subnetbench datasets`).")],
    set_: Set = None,
    data: Data = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random streams of the run.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=0, help="Short for `--set epochs=N`.")] = None,
    task: Annotated[str | None, typer.Option(help="Task, where a data set has several.")] = None,
    input_: Input = None,
    processes: Processes = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each process.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, tf32, or bf16 for mixed precision.")] = "fp32",
    out: Results = None,
    data_root: DataRoot = None,
    tracker: Tracker = None,
    items: Items = True,
    retry_failed: RetryFailed = False,
    rerun: Rerun = False,
    on: On = "here",
    cluster: ClusterName = None,
    code_changes: CodeChanges = "refuse",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the run (and its job) and start none.")] = False,
) -> None:
    """Train and evaluate one method on one data set; again, it resumes, or shows the finished result.

    Example: `subnetbench run edge_popup emoji --set sparsity=0.7 --seed 1 --epochs 3`, with `--rerun` after an edit
    """
    launch = _Launch(data_root=data_root, trackers=tracker, items=items, retry_failed=retry_failed, rerun=rerun,
                     dry_run=dry_run, on=on, cluster=cluster, code_changes=code_changes)  # fmt: skip
    with ProgressDisplay(quiet()) as display:
        done = api.run(
            method,
            dataset,
            config={**assignments(set_, "--set"), **({} if epochs is None else {"epochs": epochs})},
            data=assignments(data, "--data"),
            task=task,
            seed=seed,
            inputs=assignments(input_, "--input"),
            compute={"processes": processes, "threads": threads, "device": device, "precision": precision},
            results=out or "results/runs",
            progress=display,
            **launch,
        )
    print_launched([*done.inputs, done], done.results, done.submission, dry_run)


def sweep(
    file: Annotated[Path, typer.Argument(help="Sweep file (YAML).")],
    out: Results = None,
    data_root: DataRoot = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="CPU slots for runs [default: the file's, else the cores].")
    ] = None,
    runs_per_gpu: RunsPerGpu = 1,
    tracker: Tracker = None,
    items: Items = True,
    retry_failed: RetryFailed = False,
    rerun: Rerun = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs (and jobs) and start none.")] = False,
    on: On = "here",
    cluster: ClusterName = None,
    code_changes: CodeChanges = "refuse",
) -> None:
    """Run all runs of a sweep file; again, it skips finished runs and resumes half-finished ones.

    Examples: `subnetbench sweep sweeps/quickstart.yaml`, `subnetbench sweep big.yaml --on slurm --cluster mysite`,
    `subnetbench sweep sweeps/quickstart.yaml --rerun` after a method was edited
    """
    launch = _Launch(data_root=data_root, trackers=tracker, items=items, retry_failed=retry_failed, rerun=rerun,
                     dry_run=dry_run, on=on, cluster=cluster, code_changes=code_changes)  # fmt: skip
    with ProgressDisplay(quiet()) as display:
        done = api.sweep(
            file,
            results=out,
            slots=slots,
            runs_per_gpu=runs_per_gpu,
            progress=display,
            **launch,
        )
    print_launched(done.runs, done.results, done.submission, dry_run)


def clean(
    folder: Annotated[Path, typer.Argument(help="Results folder.")],
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Also remove what unfinished runs would resume from.")
    ] = False,
    models: Annotated[bool, typer.Option("--models", help="Also remove trained models; records stay.")] = False,
    items: Annotated[
        bool, typer.Option("--items", help="Also remove outcomes by item; intervals are over seeds alone then.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be removed.")] = False,
) -> None:
    """Remove what finished runs no longer need: left-over checkpoints, temporary files, caches.

    Example: `subnetbench clean results/quickstart --dry-run`
    """
    removed = api.clean(folder, checkpoints=checkpoints, models=models, items=items, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    for path in removed:
        note(f"{verb} {path.path} ({path.size / 1e6:.1f} MB)")
    typer.echo(f"{verb} {len(removed)} files, {sum(path.size for path in removed) / 1e6:.1f} MB")


def print_launched(
    runs: "Sequence[api.Run]", results: Path, submission: "api.Submission | None", dry_run: bool
) -> None:
    """What became of runs; exit status 1 when one is not finished, or was not submitted."""
    if submission is not None:
        print_submission(submission)
    elif dry_run:
        print_table(("run", "state"), [(r.id, "to do" if r.status == "to do" else "done before") for r in runs])
        todo = sum(run.status == "to do" for run in runs)
        typer.echo(f"{todo} of {len(runs)} runs to do, results in {results}")
    else:
        print_board(results)
        if len(runs) == 1:
            print_matrices(runs[0].matrices())
        note(f"\nfiles: {results}")
        _print_unfinished(runs, results)


def _print_unfinished(runs: "Sequence[api.Run]", results: Path) -> None:
    unfinished = [run for run in runs if run.status != "finished"]
    for run in unfinished:
        detail = f": {run.message.splitlines()[0]}" if run.message else ""
        typer.echo(f"{run.status}: {run.id}{detail}", err=True)
    failed = sum(run.status == "failed" for run in unfinished)
    if failed:
        text = f"{failed} failed; see `subnetbench logs RUN --out {results}`, retry with --retry-failed"
        note(text, err=True)
    if any(run.status == "interrupted" for run in unfinished):
        note("interrupted; the same command resumes", err=True)
    if unfinished:
        raise typer.Exit(1)
