"""Tuning as users run it: killed at random moments, on a journal and on PostgreSQL, to leaderboard rows."""

import contextlib
import csv
import glob
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import optuna
import pyarrow.parquet as pq
import pytest
import yaml
from optuna.trial import TrialState

from subnetbench.harness.leaderboard import Leaderboard
from subnetbench.harness.runs.folder import find_runs
from subnetbench.harness.tuning.storage import open_storage

PLUGIN = Path(__file__).parent.parent / "harness" / "tuning" / "sleeping_method.py"
LATEST = 600


def quality(x, y, seed=0):
    return 0.99 - ((x - 0.3) ** 2 + abs(y - 0.01)) / 2 + 0.001 * (seed % 7)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(condition, process=None):
    deadline = time.monotonic() + LATEST
    while time.monotonic() < deadline:
        if (found := condition()) or (process is not None and process.poll() is not None):
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


@pytest.fixture(scope="module")
def postgres():
    """A PostgreSQL server of its own, which dies with the tests; the URL of an empty database."""
    found = shutil.which("initdb") or next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="subnetbench-postgres-"))
    # The server refuses to run as root; Debian's package brings a user for it.
    options = {"user": "postgres"} if os.geteuid() == 0 else {}
    if options:
        shutil.chown(folder, "postgres")
    port = free_port()
    command = [found, "-D", folder / "data", "-A", "trust", "-U", "tuner", "--no-sync"]
    subprocess.run(command, check=True, capture_output=True, cwd="/", **options)
    listen = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-p", str(port)]
    with open(folder.parent / f"{folder.name}.log", "w") as log:
        server = subprocess.Popen(
            [Path(found).with_name("postgres"), "-D", folder / "data", *listen],
            stdout=log,
            stderr=log,
            cwd="/",
            **options,
        )

    def answers():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True

    try:
        wait_for(answers, server)
        yield f"postgresql://tuner@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
        shutil.rmtree(folder)
        Path(log.name).unlink()


def write(path, **fields):
    content = {"name": "t", "methods": [{"method": "sleeping", "dataset": "blank"}], **fields}
    path.write_text(yaml.safe_dump(content))
    return ["--plugin", PLUGIN, "tune", path, "--tracker", "none"]


def open_study(place, name="t.sleeping"):
    return optuna.load_study(study_name=name, storage=open_storage(str(place)))


def workers_of(results):
    """Processes that carry out trials below a results folder: they hold a log open for writing."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                targets = {os.readlink(link) for link in (entry / "fd").iterdir()}
                if any(t.startswith(str(results)) and t.endswith("log.txt") for t in targets):
                    found.append(int(entry.name))
    return found


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_killing_the_driver_or_a_worker_at_any_moment_loses_no_trial(start, subnetbench, tmp_path, request, kind):
    results = tmp_path / "results" / "t"
    place = results / "study.log" if kind == "journal" else request.getfixturevalue("postgres")
    config = {"seconds": 0.6, "epochs": 3}
    command = write(
        tmp_path / "t.yaml",
        budget={"trials": 14},
        workers=2,
        pruner="median",
        final_seeds=[],
        retries=20,
        methods=[{"method": "sleeping", "dataset": "blank", "config": config}],
    )
    command += [] if kind == "journal" else ["--storage", place]
    moments, finished = random.Random(kind), {}
    kills = {"driver": 0, "worker": 0}
    for victim in ("driver", "worker", "driver", "worker", "driver"):
        driver = start(*command)
        before = len(finished)

        def further(before=before):
            with contextlib.suppress(Exception):
                trials = open_study(place).get_trials(deepcopy=False)
                return sum(t.state.is_finished() for t in trials) > before and workers_of(results)

        wait_for(further, driver)
        time.sleep(moments.uniform(0, 0.8))
        for pid in workers_of(results)[:1] if victim == "worker" else [driver.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                kills[victim] += 1
        if victim == "worker":
            time.sleep(moments.uniform(0, 1.5))
            driver.kill()
        driver.wait()
        for trial in open_study(place).get_trials():
            if trial.number in finished:
                assert (trial.state, trial.values, trial.params) == finished[trial.number]
            if trial.state.is_finished():
                finished[trial.number] = (trial.state, trial.values, trial.params)
    assert kills["driver"] >= 2
    assert kills["worker"] >= 1

    subnetbench(*command, timeout=LATEST)
    trials = open_study(place).get_trials()
    by_number = {trial.number: trial for trial in trials}
    assert sorted(by_number) == list(range(len(trials)))
    assert {n: (by_number[n].state, by_number[n].values, by_number[n].params) for n in finished} == finished
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert sum(trial.state != TrialState.FAIL for trial in trials) == 14
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            assert trial.value == quality(trial.params["x"], trial.params["y"])
        if trial.state == TrialState.FAIL:
            assert trial.user_attrs["reason"]["kind"] == "killed"
            assert any(t.params == trial.params and t.number > trial.number for t in trials), "it was tried again"

    # Each finished run is one trial's, and was given what the study holds, bit for bit.
    given = {}
    for file in sorted((results / "trials" / "records").glob("*.parquet")):
        rows = pq.read_table(file).to_pylist()
        assert rows[0]["trial"] is not None
        if rows[0]["status"] == "finished":
            (x,) = [row["value"] for row in rows if row["metric"] == "loss"]
            given.setdefault(rows[0]["run_id"], x)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert sorted(given.values()) == sorted(trial.params["x"] for trial in complete)


@pytest.mark.timeout(900)
def test_a_pruned_trial_stops_on_all_ranks_and_is_no_result(subnetbench, tmp_path):
    config = {"network": "conv2", "image_size": 8, "batch_size": 64, "epochs": 3, "weight_decay": 0.0}
    command = write(
        tmp_path / "t.yaml",
        budget={"trials": 2},
        workers=1,
        pruner={"name": "median", "n_startup_trials": 1},
        final_seeds=[],
        methods=[
            {
                "method": "dense",
                "dataset": "emoji",
                "config": config,
                "compute": {"processes": 2, "device": "cpu"},
                "space": {"lr": {"log": [1e-9, 0.5]}},
                "enqueue": [{"lr": 0.05}, {"lr": 1e-9}],
            }
        ],
    )
    subnetbench(*command, timeout=LATEST)
    results = tmp_path / "results" / "t"
    trials = open_study(results / "study.log", "t.dense").get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert set(trials[0].intermediate_values) == {1, 2, 3}
    assert 1 <= len(trials[1].intermediate_values) < 3
    assert trials[0].user_attrs["axis"] == trials[1].user_attrs["axis"]
    by_state = {run.state(): run for run in find_runs(results / "trials")}
    log = by_state["failed"].log_file.read_text()
    assert log.count("pruned: pruned by the study") == 2
    board = Leaderboard(results)
    assert len(board.runs) == 0
    assert board.tally.trials == 2
    with_trials = Leaderboard(results, trials=True)
    assert sorted(with_trials.runs.count("pruned").tolist()) == [0, 1]
    assert with_trials.runs.finished.sum() == 1


@pytest.mark.timeout(900)
def test_from_a_file_to_rows_that_say_what_the_search_cost(subnetbench, tmp_path):
    command = write(
        tmp_path / "t.yaml",
        budget={"trials": 4},
        workers=2,
        final_seeds=[11, 12],
        methods=[
            {"method": "sleeping", "dataset": "blank", "enqueue": [{"x": 0.3, "y": 0.01}]},
            # Its default is the best there is: one run is both the default and the tuned one.
            {
                "method": "sleeping",
                "dataset": "blank",
                "label": "default",
                "config": {"x": 0.3, "mode": "b"},
                "space": {"y": {"choice": [0.1]}},
            },
        ],
    )
    subnetbench(*command, timeout=LATEST)
    results = tmp_path / "results" / "t"
    assert not [run for run in find_runs(results / "trials") if (run.path / "test-was-touched").exists()]
    finals = find_runs(results)
    assert all((run.path / "test-was-touched").read_text() == "once\n" for run in finals)
    assert len(finals) == 6
    asked = ("--metric", "top1", "--metric", "search_trials", "--metric", "search_device_hours")
    cells = json.loads(subnetbench("leaderboard", results, *asked, "--format", "json").stdout)["cells"]
    cost = {(c["tuned"], c["config"]): c["mean"] for c in cells if c["metric"] == "search_trials"}
    score = {(c["tuned"], c["config"]): c["mean"] for c in cells if c["metric"] == "top1"}
    assert [c["seeds"] for c in cells if c["metric"] == "top1"] == [2] * 4
    assert sorted(tuned for tuned, _ in score) == [False, False, True, True]
    assert {key: cost.get(key) for key in score} == {key: 4.0 if key[0] else None for key in score}
    # The best of the second study is its default: the same scores in a row of each kind, from one run.
    assert score[True, "mode=b, x=0.3, y=0.1"] == score[False, "mode=b, x=0.3, y=0.1"]

    gains = list(csv.DictReader((results / "gains.csv").open()))
    assert [float(gain["difference"]) for gain in gains] == [pytest.approx(quality(0.3, 0.01) - quality(0.5, 0.1)), 0.0]
    assert [gain["trials"] for gain in gains] == ["4", "4"]

    sweep = yaml.safe_load((results / "best.yaml").read_text())
    assert sweep["tuned_by"] == "t"
    assert sweep["runs"][0]["config"]["x"] == 0.3
    listed = subnetbench("--plugin", PLUGIN, "sweep", results / "best.yaml", "--dry-run", "--out", results).stdout
    assert "0 of 4 runs to do" in listed
    files = {path.name for path in (results / "studies" / "sleeping").iterdir()}
    assert {"trials.csv", "history.csv", "slices.csv", "importances.json", "summary.json"} <= files

    port = free_port()
    dashboard = subprocess.Popen(
        [Path(sys.executable).with_name("optuna-dashboard"), results / "study.log", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def studies():
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies") as answer:
            return json.load(answer)["study_summaries"]

    try:
        assert {study["study_name"] for study in wait_for(studies, dashboard)} == {"t.sleeping", "t.default"}
    finally:
        dashboard.kill()
        dashboard.wait()
