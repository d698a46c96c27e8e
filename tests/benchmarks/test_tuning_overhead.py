"""What tuning costs beyond the trials: orchestration and idle slots, and what waiting for batches would cost.

The trials sleep, so they need no processor; what is measured is the program around them. Every trial is a run with
processes of its own, a log and a record, as in real tuning.
"""

import time
from pathlib import Path

import pytest

from subnetbench.harness.core.registry import load_plugin
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.tuning import studies
from subnetbench.harness.tuning.attributes import OUTCOME
from subnetbench.harness.tuning.driver import Driver
from subnetbench.harness.tuning.tuning_file import TuningFile

PLUGIN = Path(__file__).parent.parent / "harness" / "tuning" / "sleeping_method.py"
WORKERS = 4


class SynchronousBatches(Driver):
    """What a batch sweeper does: as many trials as there are slots, then wait for the slowest of them."""

    def fill(self):
        if not self.in_flight():
            super().fill()


def search(folder, trials, **config):
    """Tune with sleeping trials; returns the study and the seconds from the first start to the last end."""
    load_plugin(PLUGIN)
    file = TuningFile.parse(
        {
            "name": "t",
            "budget": {"trials": trials},
            "workers": WORKERS,
            "methods": [{"method": "sleeping", "dataset": "blank", "config": {"epochs": 1, **config}}],
        }
    )
    settings = studies.TuningSettings(results=folder, trackers=(), final=False)
    (study,) = studies.run_studies(file, settings).searches
    runs = [run for trial in study.trials() for run in trial.user_attrs[OUTCOME]["runs"]]
    return study, runs, max(run[2] for run in runs) - min(run[1] for run in runs)


@pytest.mark.timeout(3600)
def test_orchestration_and_idle_slots_at_200_trials_of_one_second(benchmark, tmp_path):
    search(tmp_path / "warm", WORKERS, seconds=0.0)  # the fork server imports everything once
    done, cpu = {}, time.process_time()
    benchmark.pedantic(lambda: done.update(result=search(tmp_path / "out", 200, seconds=1.0)), rounds=1)
    cpu = (time.process_time() - cpu) / 200
    study, runs, wall = done["result"]
    assert len(runs) == len(study.trials()) == 200
    busy = sum(ended - started for _, started, ended in runs)
    inside = sum(RunFolder(study.trials_folder, run[0]).heartbeat().seconds for run in runs)
    # From the end of a trial's process to the next one's start, on each slot: reading the record, tell, ask, spec, fork.
    idle = 1 - busy / (WORKERS * wall)
    orchestration = (WORKERS * wall - inside) / 200
    beyond = (WORKERS * wall - 200 * 1.0) / 200
    print(
        f"\n200 trials of 1 s on {WORKERS} slots: {wall:.1f} s; a trial beyond its sleep: {beyond:.3f} s, of which "
        f"outside the run itself: {orchestration:.3f} s; slots idle: {100 * idle:.2f} %; driver's CPU: {cpu:.4f} s a trial"
    )
    benchmark.extra_info.update(wall=wall, beyond=beyond, orchestration=orchestration, idle=idle)
    assert beyond < 0.3
    assert idle < 0.05


@pytest.mark.timeout(3600)
def test_batches_wait_for_their_slowest_and_slots_do_not(benchmark, tmp_path, monkeypatch):
    config = {"seconds": 1.5, "spread": 0.9}  # between 0.15 and 2.85 s, by the value of x
    search(tmp_path / "warm", WORKERS, seconds=0.0)
    ours, runs, asynchronous = search(tmp_path / "ours", 40, **config)
    monkeypatch.setattr(studies, "Driver", SynchronousBatches)
    done = {}
    benchmark.pedantic(lambda: done.update(result=search(tmp_path / "batches", 40, **config)), rounds=1)
    batches, _, synchronous = done["result"]
    monkeypatch.undo()

    def lengths(study):
        return sum(1.5 * (1 + 0.9 * (2 * trial.params["x"] - 1)) for trial in study.trials())

    # Proposals depend on what is known, so the two searches sleep for different times: compare with the ideal.
    rows = {"slots": (asynchronous, lengths(ours)), "batches": (synchronous, lengths(batches))}
    efficiency = {name: total / (WORKERS * wall) for name, (wall, total) in rows.items()}
    for name, (wall, total) in rows.items():
        share = f"{100 * efficiency[name]:.0f} %"
        print(f"\n{name}: 40 trials, {total:.1f} s of sleep on {WORKERS} slots in {wall:.1f} s: {share}")
    benchmark.extra_info.update(efficiency, asynchronous=asynchronous, synchronous=synchronous)
    assert len(runs) == 40
    assert efficiency["slots"] > efficiency["batches"]
