"""Shared by the tests of tuning: a plug-in with a known objective, and a launcher that answers at once."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from subnetbench.harness.records import RunRecord, Score, write_record
from subnetbench.harness.registry import load_plugin
from subnetbench.harness.run_folder import RunFolder
from subnetbench.harness.tuning.driver import Driver
from subnetbench.harness.tuning.launching import Ended
from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.storage import only_driver, open_storage
from subnetbench.harness.tuning.tuning_file import TuningFile

PLUGIN = Path(__file__).with_name("sleeping_method.py")


def quality(x, y, seed=0):
    return 1 - (x - 0.3) ** 2 - abs(y - 0.01) + 0.001 * (seed % 7)


class InstantTrials:
    """A launcher whose runs take no time: it writes what a run writes, and says how it ended, newest first.

    `ends` may replace how a run ends: it is called with the spec and returns `finished`, `failed:<reason>`,
    `pruned`, or None for a run that stays under way.
    """

    def __init__(self, results, settings, ends=lambda spec: "finished"):
        self.results, self.ends = results, ends
        self.started, self.settings, self.under_way = [], [], {}

    def start(self, spec, settings):
        self.started.append(spec.run_id)
        self.settings.append(settings)
        self.under_way[spec.run_id] = (spec, settings)

    def attach(self, spec, settings):
        return False

    def wait(self):
        for run_id, (spec, settings) in reversed(self.under_way.items()):
            said = self.ends(spec)
            if said is not None:
                del self.under_way[run_id]
                return [self.end(spec, settings, said)]
        return []

    def stop(self):
        self.under_way.clear()

    def end(self, spec, settings, said):
        ending, _, reason = said.partition(":")
        folder = RunFolder(self.results, spec.run_id)
        folder.create(spec.model_dump_json())
        folder.progress_file.write_text(json.dumps({"seconds": 36.0, "time": time.time()}))
        if ending == "finished":
            record = self.record(spec, settings)
            folder.finished_file.write_text(json.dumps({"record": record.name}))
        else:
            facts = {"reason": reason or ending, "message": "as planned", "time": time.time()}
            folder.failure_file.write_text(json.dumps(facts))
        return Ended(spec.run_id, ending, time.time(), time.time())

    def record(self, spec, settings):
        config, split, now = spec.config, settings.get("split", "test"), datetime.now(UTC)
        size = config["size"]
        rows = [("top1", quality(config["x"], config["y"], spec.seed), split), ("parameters", 100.0 * size, "")]
        rows += [("macs_executed", 1000.0 * size, "")]
        rows += [(name, value, "") for name, value in settings.get("search_cost", {}).items()]
        return write_record(
            self.results,
            RunRecord(
                run_id=spec.run_id,
                status="finished",
                method=spec.method,
                dataset=spec.dataset,
                task=spec.task,
                protocol="blank",
                data_digest="blank",
                seed=spec.seed,
                started_at=now,
                finished_at=now,
                primary_metric="top1",
                config=spec.recipe(),
                config_hash=spec.config_hash,
                tuned=settings.get("tuned", False),
                study=settings.get("study", ""),
                trial=settings.get("trial"),
                scores=[
                    Score(metric=name, value=value, split=own, variant="" if name.startswith("search") else "only")
                    for name, value, own in rows
                ],
            ),
        )


@pytest.fixture
def plugin():
    load_plugin(PLUGIN)
    return PLUGIN


@pytest.fixture
def study(plugin, tmp_path):
    """Search with the method `sleeping`, whose runs take no time here; keywords are fields of the file.

    Returns the searches (the first one as `search`) and the launcher. The files that a tuning leaves are not
    written, nor are there final runs.
    """

    def run(*, ends=lambda spec: "finished", folder="out", workers=1, entry=None, **fields):
        fields.setdefault("budget", {"trials": 10})
        methods = fields.pop("methods", None) or [{"method": "sleeping", "dataset": "blank", **(entry or {})}]
        file = TuningFile.parse({"name": "t", "methods": methods, **fields})
        results = tmp_path / folder
        place = str(results / "study.log")
        storage = open_storage(place)
        with only_driver(results):
            searches = [Search(file, each, storage, place, results / "trials") for each in file.entries()]
            launcher = InstantTrials(results / "trials", {}, ends)
            assert Driver(searches, launcher, workers).run()
        return SimpleNamespace(searches=searches, search=searches[0], launcher=launcher)

    return run
