"""The command that searches: `tune`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from subnetbench.harness.cli.cluster import ClusterName, CodeChanges, On
from subnetbench.harness.cli.common import Data, DataRoot, Results, Set, assignments, conditions, data_root, print_table
from subnetbench.harness.cli.running import RunsPerGpu, Tracker
from subnetbench.harness.errors import UserError

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
    data_root_: DataRoot = None,
    runs_per_gpu: RunsPerGpu = 1,
    tracker: Tracker = None,
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
    """Search hyper-parameters on validation data, retrain the best with fresh seeds; again, it goes on.

    Examples: `subnetbench tune edge_popup emoji --trials 20 --workers 2 --set epochs=4`,
    `subnetbench tune search.yaml --on slurm --cluster mysite`
    """
    from subnetbench.harness.tuning.tune import quick_file
    from subnetbench.harness.tuning.tuning_file import read_tuning_file

    budget = {"trials": trials, "device_hours": device_hours} if trials or device_hours else None
    path = Path(file_or_method)
    if dataset is None and (path.suffix in (".yaml", ".yml") or path.exists()):
        content = read_tuning_file(path)
        changed: dict[str, Any] = {"budget": budget, "sampler": sampler, "pruner": pruner, "seed": seed}
        changed = {name: value for name, value in changed.items() if value is not None}
        for option, value in (("--set", set_), ("--search", search), ("--data", data), ("--objective", objective)):
            if value:
                raise UserError("belongs into the tuning file", field=option)
        if changed:
            content = type(content).parse({**content.model_dump(exclude_unset=True), **changed})
    elif dataset is None:
        raise UserError("a method needs a data set; a tuning file ends in .yaml", field="DATASET", value=file_or_method)
    else:
        content = quick_file(
            file_or_method,
            dataset,
            budget=budget,
            sampler=sampler,
            pruner=pruner,
            seed=seed,
            objectives=objective or None,
            constraints=[_constraint(text) for text in constraint or []] or None,
            config=assignments(set_, "--set"),
            data=assignments(data, "--data"),
            space=assignments(search, "--search"),
            enqueue=[_mapping(text) for text in enqueue or []],
            warm_start=warm_start,
            compute={"processes": processes, "device": device},
        )
    if dry_run:
        _print_spaces(content)
        return
    options: dict[str, Any] = {"results": out, "storage": storage, "workers": workers, "trackers": tracker}
    options |= {"data_root": data_root(data_root_), "final": not no_final}
    if on == "slurm" and driver == "slurm":
        from subnetbench.harness.cli.cluster import submit_tuning

        submit_tuning(content, cluster, code_changes=code_changes, **options)
        return
    if on == "slurm":
        from subnetbench.harness.clusters import read_cluster
        from subnetbench.harness.tuning.on_slurm import slurm_launcher, slurm_workers

        site = read_cluster(cluster)
        options["workers"] = slurm_workers(content, site, workers)
        options["make_launcher"] = slurm_launcher(content, site, code_changes, say=typer.echo)
    from subnetbench.harness.tuning.tune import tune as carry_out

    tuned = carry_out(content, runs_per_gpu=runs_per_gpu, say=typer.echo, **options)
    _print_end(tuned)
    if not tuned.complete:
        raise typer.Exit(1)


def _print_end(tuned: Any) -> None:
    rows = []
    for search in tuned.searches:
        for trial in search.best():
            values = ", ".join(f"{o.metric} {v:.6g}" for o, v in zip(search.objectives, trial.values, strict=True))
            config = ", ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
            rows.append((search.label, trial.number, values, config))
        if not search.best():
            rows.append((search.label, "-", "nothing found", search.stopped or ""))
    print_table(("study", "trial", "validation", "configuration"), rows, title="best configurations")
    if tuned.gains:
        shown = [
            (
                g.study,
                g.metric,
                f"{g.default:.4f}",
                f"{g.tuned:.4f}",
                f"{g.difference:+.4f} [{g.low:+.4f}, {g.high:+.4f}]",
                g.seeds,
                g.trials,
                f"{g.device_hours:.3f}",
            )
            for g in tuned.gains
        ]
        columns = ("study", "metric", "default", "tuned", "tuned - default", "seeds", "trials", "device hours")
        print_table(columns, shown, title="on the test set, paired by seed, 95 % intervals over seeds")
    if tuned.endings:
        from subnetbench.harness.cli.boards import print_board

        print_board(tuned.results)
    typer.echo(f"\nfiles: {tuned.results}")
    if tuned.interrupted:
        typer.echo("interrupted; the same command goes on where it stopped", err=True)
    failed = [run_id for run_id, ending in tuned.endings.items() if ending not in ("finished", "interrupted")]
    for run_id in failed:
        typer.echo(f"failed: {run_id}; see `subnetbench logs {run_id} --out {tuned.results}`", err=True)


def _print_spaces(content: Any) -> None:
    from subnetbench.harness.registry import get_method
    from subnetbench.harness.tuning.space import build_space

    rows = []
    for entry in content.entries():
        config = get_method(entry.method).Config
        space = build_space(entry.method, config, entry.config, entry.space, operating_points=content.operating_points)
        for dimension in space.dimensions:
            where = conditions(dimension.when)
            rows.append((entry.label, dimension.name, _distribution(dimension.distribution), where))
    print_table(("study", "field", "searched in", "where"), rows)
    studies = len(content.methods)
    typer.echo(f"1 study of {content.budget}" if studies == 1 else f"{studies} studies of {content.budget} each")


def _distribution(distribution: Any) -> str:
    if hasattr(distribution, "choices"):
        return ", ".join(map(str, distribution.choices))
    step = f", step {distribution.step}" if distribution.step not in (None, 1) else ""
    return f"{distribution.low} to {distribution.high}" + (" (log)" if distribution.log else "") + step


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _constraint(text: str) -> dict[str, Any]:
    for sign, name in (("<=", "at_most"), (">=", "at_least")):
        metric, found, bound = text.partition(sign)
        if found:
            try:
                return {"metric": metric.strip(), name: float(bound)}
            except ValueError:
                break
    raise UserError("must look like metric<=number or metric>=number", field="--constraint", value=text)


def _mapping(text: str) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict):
        raise UserError("must be a mapping, e.g. {lr: 0.1}", field="--enqueue", value=text)
    return value


def add_commands(app: typer.Typer) -> None:
    app.command()(tune)
