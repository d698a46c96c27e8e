"""After the search: the best configurations with fresh seeds, once on the test set, beside the default ones."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from subnetbench.harness.core.files import publish_table
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.signals import termination_as_interrupt
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.tuning.driver import AGAIN
from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.trial_launchers import TrialLauncher


@dataclass(frozen=True)
class FinalRun:
    """One run on the test set; `tuned` is whether a search, that of `study`, chose its config among `searched` fields."""

    spec: RunSpec
    study: str = ""
    searched: tuple[str, ...] = ()
    search_cost: Mapping[str, float] = field(default_factory=dict)

    @property
    def tuned(self) -> bool:
        return bool(self.study)

    def settings(self, common: RunSettings) -> RunSettings:
        """The settings of this run, made from those that all have in common."""
        return replace(common, study=self.study, tuned=self.tuned, searched=self.searched, search_cost=self.search_cost)


def final_runs(searches: Sequence[Search]) -> list[FinalRun]:
    """The runs that follow the searches: of each study the best configuration and the default one, seed by seed.

    Studies with several objectives have no best configuration; their front is written as a sweep file instead.
    """
    found = []
    for search in searches:
        best = search.best()
        if len(search.objectives) > 1 or not best:
            continue
        file = search.file
        cost = {"search_trials": float(search.completed()), "search_device_hours": search.device_hours()}
        config = search.space.config_of(best[0].params)
        for seed in file.final_seeds:
            if file.default_rows:
                found.append(FinalRun(search.spec({}, seed), searched=search.space.names))
            found.append(FinalRun(search.spec(config, seed), search.name, search.space.names, cost))
    return found


def carry_out(
    runs: Sequence[FinalRun], launcher: TrialLauncher, ended: Callable[[str, str], None] = lambda run_id, status: None
) -> dict[str, str]:
    """Carry out what is not finished; how each run ended, by run id. Interrupted, the same call resumes.

    Where the best configuration is the default one, or that of another study, there is one run of both kinds: its
    record is copied, marked as tuned by the study, so the test set is not touched twice.
    """
    by_id: dict[str, FinalRun] = {}
    for run in sorted(runs, key=lambda run: run.tuned):
        by_id.setdefault(run.spec.run_id, run)
    statuses = {run_id: "finished" for run_id in by_id if RunFolder(launcher.results, run_id).finished_file.exists()}
    with termination_as_interrupt():
        try:
            for run_id, run in by_id.items():
                if run_id not in statuses:
                    launcher.start(run.spec, run.settings(launcher.settings))
            while len(statuses) < len(by_id):
                for each in launcher.wait():
                    if each.run_id in by_id and each.status in AGAIN:
                        run = by_id[each.run_id]
                        launcher.start(run.spec, run.settings(launcher.settings))
                    elif each.run_id in by_id:
                        statuses[each.run_id] = each.status
                        ended(each.run_id, each.status)
        except KeyboardInterrupt:
            launcher.stop()
            return {run_id: statuses.get(run_id, "interrupted") for run_id in by_id}
    for run in runs:
        if statuses[run.spec.run_id] == "finished" and run is not by_id[run.spec.run_id] and run.tuned:
            _copy_record(launcher.results, run)
    return statuses


def _copy_record(results: Path, run: FinalRun) -> None:
    """Record a finished run a second time, as a tuned one; once, however often this is called."""
    source = RunFolder(results, run.spec.run_id).record_file()
    assert source is not None, "only finished runs are recorded again"
    target = source.with_name(f"{source.stem}.{run.study}.parquet")
    if target.exists():
        return
    table = pq.read_table(source)
    table = table.filter(pc.invert(pc.is_in(table["metric"], pa.array(list(run.search_cost)))))
    for name, value in run.search_cost.items():
        row = {**table.slice(0, 1).to_pylist()[0], "metric": name, "value": value}
        row |= {"split": "", "variant": "", "gallery_variant": ""}
        table = pa.concat_tables([table, pa.Table.from_pylist([row], schema=table.schema)])
    marks = {"tuned": True, "study": run.study, "record_id": uuid.uuid4().hex}
    for name, mark in marks.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(
            index, table.schema.field(index), pa.array([mark] * len(table), table.schema.field(index).type)
        )
    publish_table(table, target, overwrite=False)
