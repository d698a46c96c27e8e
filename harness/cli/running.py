"""Commands that run: `run`, `sweep`, `clean`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from subnetbench.harness.cli.cluster import ClusterName, CodeChanges, On
from subnetbench.harness.cli.common import Data, DataRoot, Results, Set, assignments, data_root
from subnetbench.harness.errors import UserError

Processes = Annotated[int, typer.Option("--processes", min=1, help="Ranks of the run: GPUs, or gloo on the CPU.")]
Tracker = Annotated[
    list[str] | None,
    typer.Option("--tracker", help="Tracker by its Accelerate name, repeatable; `none` for none.", show_default=False),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run failed runs again.")]
RunsPerGpu = Annotated[int, typer.Option("--runs-per-gpu", min=1, help="Runs that may share a GPU.")]


def run(
    method: Annotated[str, typer.Argument(help="Name of a method (see `subnetbench methods`).")],
    dataset: Annotated[str, typer.Argument(help="Name of a data set (see `subnetbench datasets`).")],
    set_: Set = None,
    data: Data = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random streams of the run.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=0, help="Short for `--set epochs=N`.")] = None,
    task: Annotated[str | None, typer.Option(help="Task, where a data set has several.")] = None,
    input_: Annotated[
        list[str] | None,
        typer.Option("--input", help="An input by role, e.g. `--input teacher={run: ID}`.", show_default=False),
    ] = None,
    processes: Processes = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each process.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for mixed precision.")] = "fp32",
    out: Results = None,
    data_root_: DataRoot = None,
    tracker: Tracker = None,
    retry_failed: RetryFailed = False,
    on: On = "here",
    cluster: ClusterName = None,
    code_changes: CodeChanges = "refuse",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --on slurm: print the job, submit none.")] = False,
) -> None:
    """Train and evaluate one method on one data set; again, it resumes, or shows the finished result.

    Example: `subnetbench run edge_popup emoji --set sparsity=0.7 --seed 1 --epochs 3`
    """
    from subnetbench.harness.specs import resolve

    config = assignments(set_, "--set")
    if epochs is not None:
        config["epochs"] = epochs
    spec = resolve(
        method,
        dataset,
        config=config,
        data=assignments(data, "--data"),
        task=task,
        seed=seed,
        compute={"processes": processes, "threads": threads, "device": device, "precision": precision},
        inputs=assignments(input_, "--input"),
    )
    if on == "slurm":
        from subnetbench.harness.cli.cluster import launch_on_slurm

        launch_on_slurm(
            [(spec, {})],
            "runs",
            out,
            _settings(tracker, data_root_),
            cluster=cluster,
            code_changes=code_changes,
            retry_failed=retry_failed,
            dry_run=dry_run,
        )
        return
    if dry_run:
        _print_plan([spec], out, "runs")
        return
    slots = processes * threads
    _launch([spec], "runs", out, data_root_, tracker, retry_failed=retry_failed, slots=slots, runs_per_gpu=1)


def sweep(
    file: Annotated[Path, typer.Argument(help="Sweep file (YAML).")],
    out: Results = None,
    data_root_: DataRoot = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="CPU slots for runs [default: the file's, else the cores].")
    ] = None,
    runs_per_gpu: RunsPerGpu = 1,
    tracker: Tracker = None,
    retry_failed: RetryFailed = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs (and jobs) and start none.")] = False,
    on: On = "here",
    cluster: ClusterName = None,
    code_changes: CodeChanges = "refuse",
) -> None:
    """Run all runs of a sweep file; again, it skips finished runs and resumes half-finished ones.

    Examples: `subnetbench sweep sweeps/quickstart.yaml`, `subnetbench sweep big.yaml --on slurm --cluster mysite`
    """
    from subnetbench.harness.sweep_file import read_sweep

    content = read_sweep(file)
    if on == "slurm":
        from subnetbench.harness.cli.cluster import launch_on_slurm

        launch_on_slurm(
            content.expand_with_resources(),
            content.name,
            out or content.results,
            {**_settings(tracker, data_root_), **content.settings()},
            resources=content.resources,
            cluster=cluster,
            code_changes=code_changes,
            retry_failed=retry_failed,
            dry_run=dry_run,
        )
        return
    specs = content.expand()
    if dry_run:
        _print_plan(specs, out or content.results, content.name)
        return
    _launch(
        specs,
        content.name,
        out or content.results,
        data_root_,
        tracker,
        retry_failed=retry_failed,
        slots=slots or content.slots,
        runs_per_gpu=runs_per_gpu,
        **content.settings(),
    )


def clean(
    folder: Annotated[Path, typer.Argument(help="Results folder.")],
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Also remove what unfinished runs would resume from.")
    ] = False,
    models: Annotated[bool, typer.Option("--models", help="Also remove trained models; records stay.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be removed.")] = False,
) -> None:
    """Remove what finished runs no longer need: left-over checkpoints, temporary files, caches.

    Example: `subnetbench clean results/quickstart --dry-run`
    """
    from subnetbench.harness.cleaning import clean_results

    if not folder.is_dir():
        raise UserError("there is no such folder", field="FOLDER", value=str(folder))
    removed = clean_results(folder, checkpoints=checkpoints, models=models, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    for path in removed:
        typer.echo(f"{verb} {path.path} ({path.size / 1e6:.1f} MB)")
    typer.echo(f"{verb} {len(removed)} files, {sum(path.size for path in removed) / 1e6:.1f} MB")


def _launch(
    specs: list[Any],
    name: str,
    out: Path | str | None,
    root: Path | None,
    trackers: list[str] | None,
    *,
    retry_failed: bool,
    slots: int | None,
    runs_per_gpu: int,
    **settings: Any,
) -> None:
    from subnetbench.harness.planning import plan_runs, results_folder, run_locally
    from subnetbench.harness.progress import ProgressDisplay

    settings = {**_settings(trackers, root), "sweep": name, **settings}
    results = results_folder(name, out)
    plan = plan_runs(specs, results, retry_failed=retry_failed)
    with ProgressDisplay(plan, results) as display:
        endings = run_locally(
            plan,
            results,
            settings,
            slots=slots,
            runs_per_gpu=runs_per_gpu,
            on_event=display.event,
            tick=display.tick,
        )
    from subnetbench.harness.cli.boards import print_board

    print_board(results)
    if len(specs) == 1:
        from subnetbench.harness.cli.matrices import print_matrices_of_run

        print_matrices_of_run(results, specs[0].run_id)
    typer.echo(f"\nfiles: {results}")
    status = _report_endings(endings, results)
    if status:
        raise typer.Exit(status)


def _settings(trackers: list[str] | None, root: Path | None) -> dict[str, Any]:
    from subnetbench.harness.trackers import check_trackers

    return {"data_root": data_root(root), "trackers": check_trackers(trackers)}


def _report_endings(endings: dict[str, str], results: Path) -> int:
    """Say what did not finish; the exit status of the command."""
    from subnetbench.harness.run_folder import RunFolder

    bad = {run_id: ending for run_id, ending in endings.items() if ending != "finished"}
    for run_id, ending in bad.items():
        failure = RunFolder(results, run_id).failure() or {}
        detail = f": {failure.get('message', '').splitlines()[0]}" if failure.get("message") else ""
        typer.echo(f"{ending}: {run_id}{detail}", err=True)
    failed = sum(ending == "failed" for ending in bad.values())
    if failed:
        typer.echo(f"{failed} failed; see `subnetbench logs RUN --out {results}`, retry with --retry-failed", err=True)
    if any(ending == "interrupted" for ending in bad.values()):
        typer.echo("interrupted; the same command goes on where it stopped", err=True)
    return 1 if bad else 0


def _print_plan(specs: list[Any], out: Path | str | None, name: str) -> None:
    from subnetbench.harness.cli.common import print_table
    from subnetbench.harness.planning import plan_runs

    results = Path(out) if out else Path("results") / name
    plan = plan_runs(specs, results)
    todo = {spec.run_id for spec in plan.todo}
    rows = [(spec.run_id, "to do" if spec.run_id in todo else "done before") for spec in plan.specs]
    print_table(("run", "state"), rows)
    typer.echo(f"{len(plan.todo)} of {len(plan.specs)} runs to do, results in {results}")


def add_commands(app: typer.Typer) -> None:
    for command in (run, sweep, clean):
        app.command()(command)
