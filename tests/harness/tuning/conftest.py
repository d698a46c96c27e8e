"""Shared by the tests of tuning: a plug-in with a known objective, and a launcher that answers at once."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from subnetbench.harness.core.registry import load_plugin
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.records import RunRecord, Score, write_record
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.tuning.driver import Driver
from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.storage import only_driver, open_storage
from subnetbench.harness.tuning.trial_launchers import Ended
from subnetbench.harness.tuning.tuning_file import TuningFile

PLUGIN = Path(__file__).with_name("sleeping_method.py")


def quality(x, y, seed=0):
    return 0.99 - ((x - 0.3) ** 2 + abs(y - 0.01)) / 2 + 0.001 * (seed % 7)


class InstantTrials:
    """A launcher whose runs take no time: it writes what a run writes, and says how it ended, newest first.

    `ends` may replace how a run ends: it is called with the spec and returns `finished`, `failed:<reason>`,
    `pruned`, or None for a run that stays under way.
    """

    def __init__(self, results, settings, ends=lambda spec: "finished"):
        self.results, self.settings, self.ends = results, settings, ends
        self.started, self.given, self.under_way = [], [], {}

    def start(self, spec, settings):
        self.started.append(spec.run_id)
        self.given.append(settings)
        self.under_way[spec.run_id] = (spec, settings)

    def attach(self, spec, settings):
        return False

    def wait(self):
        for run_id, (spec, settings) in reversed(self.under_way.items()):
            answer = self.ends(spec)
            if answer is not None:
                del self.under_way[run_id]
                return [self.end(spec, settings, answer)]
        return []

    def stop(self):
        self.under_way.clear()

    def end(self, spec, settings, answer):
        status, _, reason = answer.partition(":")
        folder = RunFolder(self.results, spec.run_id)
        folder.create(spec.model_dump_json())
        folder.progress_file.write_text(json.dumps({"seconds": 36.0, "time": time.time()}))
        if status == "finished":
            record = self.record(spec, settings)
            folder.finished_file.write_text(json.dumps({"record": record.name}))
        else:
            failure = {"reason": reason or status, "message": "as planned", "time": time.time()}
            folder.failure_file.write_text(json.dumps(failure))
        return Ended(spec.run_id, status, time.time(), time.time())

    def record(self, spec, settings):
        config, split, now = spec.config, settings.split, datetime.now(UTC)
        size = config["size"]
        rows = [("top1", quality(config["x"], config["y"], spec.seed), split), ("parameters", 100.0 * size, "")]
        rows += [("macs_executed", 1000.0 * size, "")]
        rows += [(name, value, "") for name, value in settings.search_cost.items()]
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
                tuned=settings.tuned,
                study=settings.study,
                trial=settings.trial,
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
        url = str(results / "study.log")
        storage = open_storage(url)
        with only_driver(results):
            searches = [Search(file, each, storage, url, results / "trials") for each in file.entries()]
            launcher = InstantTrials(results / "trials", RunSettings(), ends)
            assert Driver(searches, launcher, workers).run()
        return SimpleNamespace(searches=searches, search=searches[0], launcher=launcher)

    return run
