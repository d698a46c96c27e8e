"""After the search: the best configurations with fresh seeds, once on the test set, beside the default ones."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subnetbench.harness.launchers.local import termination_as_interrupt
from subnetbench.harness.run_folder import RunFolder, read_json
from subnetbench.harness.specs import RunSpec
from subnetbench.harness.tuning.driver import AGAIN
from subnetbench.harness.tuning.launching import TrialLauncher
from subnetbench.harness.tuning.search import Search


@dataclass(frozen=True)
class FinalRun:
    """One run on the test set; `tuned` says whether a search chose its config."""

    spec: RunSpec
    settings: dict[str, Any]

    @property
    def tuned(self) -> bool:
        return bool(self.settings.get("tuned"))


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
        tuned = {"study": search.name, "tuned": True, "search_cost": cost}
        config = search.space.config_of(best[0].params)
        for seed in file.final_seeds:
            if file.default_rows:
                found.append(FinalRun(search.spec({}, seed), {}))
            found.append(FinalRun(search.spec(config, seed), tuned))
    return found


def carry_out(
    runs: Sequence[FinalRun], launcher: TrialLauncher, ended: Callable[[str, str], None] = lambda run_id, ending: None
) -> dict[str, str]:
    """Carry out what is not finished; how each run ended, by run id. Interrupted, the same call goes on.

    Where the best configuration is the default one, or that of another study, there is one run of both kinds: its
    record is copied, marked as tuned by the study, so the test set is not touched twice.
    """
    by_id: dict[str, FinalRun] = {}
    for run in sorted(runs, key=lambda run: run.tuned):
        by_id.setdefault(run.spec.run_id, run)
    endings = {run_id: "finished" for run_id in by_id if RunFolder(launcher.results, run_id).finished_file.exists()}
    with termination_as_interrupt():
        try:
            for run_id, run in by_id.items():
                if run_id not in endings:
                    launcher.start(run.spec, run.settings)
            while len(endings) < len(by_id):
                for each in launcher.wait():
                    if each.run_id in by_id and each.ending in AGAIN:
                        launcher.start(by_id[each.run_id].spec, by_id[each.run_id].settings)
                    elif each.run_id in by_id:
                        endings[each.run_id] = each.ending
                        ended(each.run_id, each.ending)
        except KeyboardInterrupt:
            launcher.stop()
            return {run_id: endings.get(run_id, "interrupted") for run_id in by_id}
    for run in runs:
        if endings[run.spec.run_id] == "finished" and run is not by_id[run.spec.run_id] and run.tuned:
            _copy_record(launcher.results, run)
    return endings


def _copy_record(results: Path, run: FinalRun) -> None:
    """Record a finished run a second time, as a tuned one; once, however often this is called."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from subnetbench.harness.records.record import RECORDS_FOLDER, publish_table

    finished = read_json(RunFolder(results, run.spec.run_id).finished_file) or {}
    source = results / RECORDS_FOLDER / Path(str(finished.get("record"))).name
    target = source.with_name(f"{source.stem}.{run.settings['study']}.parquet")
    if target.exists():
        return
    table = pq.read_table(source)
    table = table.filter(pc.invert(pc.is_in(table["metric"], pa.array(list(run.settings["search_cost"])))))
    for name, value in run.settings["search_cost"].items():
        row = {**table.slice(0, 1).to_pylist()[0], "metric": name, "value": value}
        row |= {"split": "", "variant": "", "gallery_variant": ""}
        table = pa.concat_tables([table, pa.Table.from_pylist([row], schema=table.schema)])
    marks = {"tuned": True, "study": run.settings["study"], "record_id": uuid.uuid4().hex}
    for name, value in marks.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(
            place, table.schema.field(place), pa.array([value] * len(table), table.schema.field(place).type)
        )
    publish_table(table, target, overwrite=False)
