"""Commands for clusters: `cancel`, and what `run` and `sweep` do with `--on slurm`. Reading and cancelling need no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from subnetbench.harness.cli.common import DataRoot, Json, data_root, print_json, print_table
from subnetbench.harness.errors import UserError

if TYPE_CHECKING:
    from subnetbench.harness.launchers.slurm.submitting import Outcome, Submitter
    from subnetbench.harness.planning import Plan
    from subnetbench.harness.specs import RunSpec
    from subnetbench.harness.tuning.tuning_file import TuningFile

On = Annotated[Literal["here", "slurm"], typer.Option("--on", help="here: this machine; slurm: submit and return.")]
ClusterName = Annotated[
    str | None,
    typer.Option("--cluster", help="Site profile by name, or a YAML file [default: `default`, if there is one]."),
]
CodeChanges = Annotated[
    Literal["refuse", "allow"],
    typer.Option("--code-changes", help="Whether runs may go on under other code than they were submitted with."),
]


def cancel(
    sweep: Annotated[Path, typer.Argument(help="Results folder, or the name of one in results/.")],
) -> None:
    """Cancel all jobs of a sweep or tuning; runs write a checkpoint, and the same command goes on later.

    Example: `subnetbench cancel results/big_sweep`
    """
    from subnetbench.harness.launchers.slurm.ledger import Ledger
    from subnetbench.harness.launchers.slurm.submitting import cancel_all

    folder = sweep if sweep.is_dir() else Path("results") / sweep
    if not folder.is_dir():
        raise UserError("there is no such folder", field="SWEEP", value=str(sweep))
    # The driver of a tuning first, lest it replace its trials.
    places = (folder.resolve(), folder.resolve() / "trials")
    cancelled = [job for place in places for job in cancel_all(Ledger(place))]
    typer.echo(f"cancelled {len(cancelled)} jobs" if cancelled else "no jobs are queued or running")


def launch_on_slurm(
    specs: "Sequence[tuple[RunSpec, Mapping[str, Any]]]",
    name: str,
    out: Path | str | None,
    settings: Mapping[str, Any],
    *,
    resources: Mapping[str, Any] | None = None,
    cluster: str | None = None,
    code_changes: Literal["refuse", "allow"] = "refuse",
    retry_failed: bool = False,
    dry_run: bool = False,
) -> None:
    """Submit runs, each with its own wishes, and say what was done; exit status 1 when something was refused."""
    from subnetbench.harness.clusters import read_cluster
    from subnetbench.harness.launchers.slurm.resources import Resources, SweepResources, resources_for
    from subnetbench.harness.launchers.slurm.submitting import Submitter
    from subnetbench.harness.planning import plan_runs, results_folder
    from subnetbench.harness.registry import loaded_plugins

    profile = read_cluster(cluster)
    section = SweepResources.parse(dict(resources or {}), where="resources")
    wishes = {spec.run_id: wish for spec, wish in specs}

    def resources_of(spec: "RunSpec") -> Resources:
        found = resources_for(spec, profile, section, wishes.get(spec.run_id))
        found.tasks_per_node(spec.compute.processes)
        return found

    results = Path(out or Path("results") / name).resolve() if dry_run else results_folder(name, out)
    plan = plan_runs([spec for spec, _ in specs], results, retry_failed=retry_failed)
    submitter = Submitter(
        results,
        name,
        {**settings, "sweep": name, "plugins": tuple(loaded_plugins())},
        profile,
        resources_of,
        code_changes=code_changes,
    )
    if dry_run:
        outcome = submitter.dry_run(plan)
        _print_dry_run(outcome, submitter)
    else:
        outcome = submitter.submit(plan)
    _print_outcome(plan, outcome, results, dry_run)
    if outcome.faults:
        raise typer.Exit(1)


def _print_dry_run(outcome: "Outcome", submitter: "Submitter") -> None:
    for number, (submission, array) in enumerate(outcome.arrays, 1):
        typer.echo(f"array {number}: {len(array.jobs)} jobs")
        for index, job in enumerate(submission.jobs):
            typer.echo(f"  {index}: {', '.join(job)}")
        for line in submitter.script(submission, array, {}).splitlines():
            if line.startswith("#SBATCH"):
                typer.echo(f"  {line}")


def _print_outcome(plan: "Plan", outcome: "Outcome", results: Path, dry_run: bool) -> None:
    verb = "would submit" if dry_run else "submitted"
    chosen = [submission for submission, _ in outcome.arrays] if dry_run else outcome.submitted
    jobs = sum(len(submission.jobs) for submission in chosen)
    runs = sum(len(job) for submission in chosen for job in submission.jobs)
    typer.echo(f"{verb} {runs} runs as {jobs} jobs in {len(chosen)} arrays; results in {results}")
    if not dry_run and chosen:
        typer.echo(f"job numbers: {', '.join(submission.job for submission in chosen)}")
    if outcome.released:
        typer.echo(f"released {len(outcome.released)} jobs that SLURM had held")
    skipped = {
        "finished before": outcome.finished,
        "in the queue already": outcome.in_queue,
        "failed before (--retry-failed)": [run_id for run_id in plan.failed if run_id not in outcome.in_queue],
        "blocked by a failed run": outcome.blocked,
        "beyond the site's number of jobs; the same command submits them later": outcome.left_out,
    }
    for reason, run_ids in skipped.items():
        if run_ids:
            typer.echo(f"skipped {len(run_ids)}: {reason}")
    for fault in outcome.faults:
        typer.echo(f"error: {fault}", err=True)


def submit_tuning(content: "TuningFile", cluster: str | None, **options: Any) -> None:
    """Submit the job that drives a tuning, and say how to follow it. `options` are those of `submit_driver`."""
    from subnetbench.harness.clusters import read_cluster
    from subnetbench.harness.tuning.on_slurm import submit_driver

    driver = submit_driver(content, read_cluster(cluster), **options)
    if not driver.job:
        typer.echo(f"nothing is left to do; results in {driver.results}")
        return
    said = "submitted" if driver.new else f"{driver.state} already; nothing was submitted"
    typer.echo(f"the driver is job {driver.job}, {said}; results in {driver.results}")
    for what, command in (
        ("how it stands", f"status {driver.results} --watch"),
        ("its log", f"logs driver --out {driver.results}"),
        ("to stop it", f"cancel {driver.results}"),
    ):
        typer.echo(f"{what + ':':14} subnetbench {command}")


def plan(
    file: Annotated[Path, typer.Argument(help="Sweep file (YAML).")],
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="Devices (GPUs, or CPU slots) that runs may use at once.")],
    cluster: ClusterName = None,
    data_root_: DataRoot = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, help="How long each recipe is trained to measure it.")
    ] = 3.0,
    json_: Json = False,
) -> None:
    """Estimate what a sweep will cost before anything is submitted, from steps measured on this machine.

    Example: `subnetbench plan sweeps/big.yaml --gpus 8 --cluster mysite`
    """
    from subnetbench.harness.clusters import read_cluster
    from subnetbench.harness.estimate import combine, measure, start_seconds
    from subnetbench.harness.launchers.slurm.grouping import group
    from subnetbench.harness.launchers.slurm.resources import SweepResources, resources_for
    from subnetbench.harness.planning import plan_runs
    from subnetbench.harness.sweep_file import read_sweep

    content = read_sweep(file)
    entries = content.expand_with_resources()
    specs = plan_runs([spec for spec, _ in entries], Path(content.results or Path("results") / content.name)).todo
    profile, section = read_cluster(cluster), SweepResources.parse(content.resources, where="resources")
    wishes = {spec.run_id: wish for spec, wish in entries}
    arrays, _ = group(
        specs,
        lambda spec: resources_for(spec, profile, section, wishes.get(spec.run_id)),
        largest_array=profile.max_array_size,
        room=profile.max_jobs,
    )
    costs = measure(specs, data_root(data_root_), seconds=seconds)
    total = combine(specs, costs, gpus, start_seconds())
    facts = {
        "runs": total.runs,
        "jobs": sum(len(array.jobs) for array in arrays),
        "arrays": len(arrays),
        "wall_hours": total.wall_seconds / 3600,
        "device_hours": total.busy_seconds / 3600,
        "gpu_hours": total.gpu_seconds / 3600,
        "disk_gb": total.kept_bytes / 1e9,
        "most_disk_gb": total.most_bytes / 1e9,
    }
    if json_:
        print_json(
            {**facts, "recipes": {key: {**cost.__dict__, "seconds": cost.seconds} for key, cost in costs.items()}}
        )
        return
    if not total.gpu_seconds:
        typer.echo("measured on the CPU: a device is a slot of the CPU here", err=True)
    rows = []
    for key, cost in costs.items():
        same = [spec for spec in specs if spec.config_hash == key]
        step = f"{cost.seconds_per_step * 1e3:.1f} ms"
        rows.append((same[0].method, same[0].dataset, len(same), cost.device, cost.steps, step, f"{cost.seconds:.0f}"))
    print_table(("method", "data set", "runs", "measured on", "steps", "a step", "seconds a run"), rows)
    for name, value in facts.items():
        typer.echo(
            f"{name.replace('_', ' ') + ':':14} {value:.3g}" if isinstance(value, float) else f"{name + ':':14} {value}"
        )


def add_commands(app: typer.Typer) -> None:
    for command in (cancel, plan):
        app.command()(command)
