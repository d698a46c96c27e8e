"""Commands for clusters: `cancel` and `plan`; and what is said of jobs that were submitted."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from subnetbench.harness import api
from subnetbench.harness.cli.common import ClusterName, DataRoot, Json, note, print_json, print_table
from subnetbench.harness.core.quantities import macs_text


def cancel(
    sweep: Annotated[Path, typer.Argument(help="Results folder, or the name of one in results/.")],
) -> None:
    """Cancel all jobs of a sweep or tuning; runs write a checkpoint, and the same command resumes them later.

    Example: `subnetbench cancel results/big_sweep`
    """
    cancelled = api.cancel(sweep)
    typer.echo(f"cancelled {len(cancelled)} jobs" if cancelled else "no jobs are queued or running")


def plan(
    file: Annotated[Path, typer.Argument(help="Sweep file (YAML).")],
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="Devices (GPUs, or CPU slots) that runs may use at once.")],
    cluster: ClusterName = None,
    data_root: DataRoot = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, help="How long each recipe is trained to measure it.")
    ] = 3.0,
    json_: Json = False,
) -> None:
    """Estimate what a sweep will cost before anything is submitted, from steps measured on this machine.

    Example: `subnetbench plan sweeps/big.yaml --gpus 8 --cluster mysite`
    """
    estimate = api.plan(file, gpus, cluster=cluster, data_root=data_root, seconds=seconds)
    if json_:
        recipes = {r.config_hash: {**dataclasses.asdict(r.cost), "seconds": r.cost.seconds} for r in estimate.recipes}
        print_json({**estimate.totals, "recipes": recipes})
        return
    if not estimate.total.gpu_seconds:
        note("measured on the CPU: a device is a slot of the CPU here", err=True)
    rows = []
    for recipe in estimate.recipes:
        cost = recipe.cost
        step = f"{cost.seconds_per_step * 1e3:.1f} ms"
        amounts = (cost.steps, step, f"{cost.seconds:.0f}", macs_text(cost.training_macs))
        rows.append((recipe.method, recipe.dataset, recipe.runs, cost.device, *amounts))
    print_table(("method", "data set", "runs", "measured on", "steps", "a step", "seconds a run", "spends a run"), rows)
    for name, value in estimate.totals.items():
        shown = f"{value:.3g}" if isinstance(value, float) else str(value)
        shown = macs_text(value) if name == "training_macs" else shown
        typer.echo(f"{name.replace('_', ' ') + ':':14} {shown}")


def print_submission(submission: "api.Submission") -> None:
    """What was submitted or, in a dry run, would be; exit status 1 when something was refused."""
    if submission.dry_run:
        _print_arrays(submission)
    verb = "would submit" if submission.dry_run else "submitted"
    arrays = submission.arrays
    jobs = sum(len(array.jobs) for array in arrays)
    runs = sum(len(job) for array in arrays for job in array.jobs)
    typer.echo(f"{verb} {runs} runs as {jobs} jobs in {len(arrays)} arrays; results in {submission.results}")
    if not submission.dry_run and arrays:
        typer.echo(f"job numbers: {', '.join(array.job for array in arrays)}")
    if submission.released:
        note(f"released {len(submission.released)} jobs that SLURM had held")
    for reason, run_ids in submission.skipped.items():
        note(f"skipped {len(run_ids)}: {reason}")
    for fault in submission.faults:
        typer.echo(f"error: {fault}", err=True)
    if submission.faults:
        raise typer.Exit(1)


def _print_arrays(submission: "api.Submission") -> None:
    for number, array in enumerate(submission.arrays, 1):
        typer.echo(f"array {number}: {len(array.jobs)} jobs")
        for index, job in enumerate(array.jobs):
            typer.echo(f"  {index}: {', '.join(job)}")
        for line in array.directives:
            typer.echo(f"  {line}")
