"""Stub SLURM clients on the PATH: they keep a queue in a file and write down how they were called."""

import importlib.util
import json
import os
import textwrap
from pathlib import Path

import pytest

from subnetbench.harness.core.registry import load_plugin
from subnetbench.harness.execution.plan import plan_runs
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.slurm.ledger import Ledger
from subnetbench.harness.execution.slurm.profile import Cluster
from subnetbench.harness.execution.slurm.resources import SweepResources, resources_for
from subnetbench.harness.execution.slurm.submit import Submitter
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import spec_from_json
from subnetbench.harness.tuning.slurm import trials as slurm_trials
from subnetbench.harness.tuning.tuning_file import TuningFile

TUNING_TESTS = Path(__file__).parents[1] / "tuning"

CLIENTS = {
    "sbatch": """
        [ -e "$STUB/refusal" ] && { cat "$STUB/refusal" >&2; exit 1; }
        for script; do :; done
        number=$(( $(cat "$STUB/number" 2>/dev/null || echo 100) + 1 )); echo $number > "$STUB/number"
        name=$(sed -n 's/^#SBATCH --job-name=//p' "$script")
        last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$script")
        for i in $(seq 0 "$last"); do echo "${number}_$i|PENDING|0|$name||Resources|" >> "$STUB/queue"; done
        cp "$script" "$STUB/script-$number"
        [ -e "$STUB/dies" ] && exec kill -9 $PPID
        [ -e "$STUB/hangs" ] && sleep 60
        echo $number
    """,
    "squeue": 'cat "$STUB/queue" 2>/dev/null || true',
    "sacct": '[ -e "$STUB/accounting" ] || { echo "sacct: error: Slurm accounting storage is disabled" >&2; exit 1; }\n'
    'cat "$STUB/accounting"',
    "scancel": 'sed -i "s/|PENDING|/|CANCELLED|/; s/|RUNNING|/|CANCELLED|/" "$STUB/queue"',
    "scontrol": 'echo "MaxArraySize            = 4"',
    "srun": "exit 1",
}


class Stub:
    """The folder of the stub clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def set_queue(self, **states: str) -> None:
        """Replace the state of jobs, e.g. `job101_0="RUNNING"`; one that is None leaves the queue."""
        lines = []
        for line in (self.folder / "queue").read_text().splitlines():
            job, state, *rest = line.split("|")
            state = states.get(f"job{job}", state)
            if state is not None:
                reason = rest[3]
                if ":" in state:
                    state, reason = state.split(":")
                lines.append("|".join([job, state, *rest[:3], reason, *rest[4:]]))
        (self.folder / "queue").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def stub(tmp_path, monkeypatch):
    folder = tmp_path / "stub"
    folder.mkdir()
    for name, text in CLIENTS.items():
        path = folder / name
        note = f'echo "{name} $*" >> "$STUB/calls"'
        path.write_text(f"#!/bin/sh\n{note}\n{textwrap.dedent(text)}\n")
        path.chmod(0o755)
    monkeypatch.setenv("STUB", str(folder))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SUBNETBENCH_SLURM_SECONDS", "10")
    return Stub(folder)


@pytest.fixture
def submitter(tmp_path):
    """Make a submitter for a results folder with a profile and a sweep's resources."""

    def make(profile=None, sweep=None, overrides=None, **options):
        results = tmp_path / "results"
        results.mkdir(exist_ok=True)
        cluster = Cluster.parse(profile or {})
        section = SweepResources.parse(sweep or {})
        settings = RunSettings(data_root=tmp_path / "data", trackers=(), sweep="test")
        return Submitter(
            results,
            "test",
            settings,
            cluster,
            lambda spec: resources_for(spec, cluster, section, (overrides or {}).get(spec.run_id)),
            **options,
        )

    return make


@pytest.fixture
def plan(tmp_path):
    return lambda specs, **options: plan_runs(specs, tmp_path / "results", **options)


@pytest.fixture(scope="session")
def instant_trials():
    spec = importlib.util.spec_from_file_location("instant_trials", TUNING_TESTS / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.InstantTrials


class Jobs:
    """Does the jobs that the stub clients hold, as jobs do: by what is in their folders.

    `ends` is called with a spec and says how its run ends: `finished`, `failed:<reason>`, `pruned`, `vanishes`, or
    None for a job that continues.
    """

    def __init__(self, stub, folders, instant_trials, ends=lambda spec: "finished"):
        self.stub, self.folders, self.instant_trials, self.ends = stub, folders, instant_trials, ends
        self.done = []

    def work(self):
        file = self.stub.folder / "queue"
        for line in file.read_text().splitlines() if file.exists() else ():
            job, state, _, name, *_ = line.split("|")
            if state in ("PENDING", "RUNNING") and not name.startswith("t-driver"):
                self._do(job, name)

    def _do(self, job, name):
        for results in self.folders:
            plan_file = Ledger(results).jobs_folder(name.rpartition("-")[2]) / "plan.json"
            if plan_file.exists():
                plan = json.loads(plan_file.read_text())
                (run_id,) = plan["jobs"][int(job.partition("_")[2])]
                spec = spec_from_json(RunFolder(results, run_id).spec_file.read_bytes())
                said = self.ends(spec)
                if said is None:
                    return
                if said != "vanishes":
                    self.done.append(run_id)
                    settings = RunSettings.from_json(plan["own_settings"][run_id])
                    self.instant_trials(results, settings).end(spec, settings, said)
                self.stub.set_queue(**{f"job{job}": "COMPLETED" if said == "finished" else "FAILED"})


@pytest.fixture
def tuning_file():
    """The tuning file of a method that sleeps; keywords are its fields, and `entry` those of its only study."""

    def make(**fields):
        entry = {"method": "sleeping", "dataset": "blank", **fields.pop("entry", {})}
        return TuningFile.parse({"name": "t", "budget": {"trials": 6}, "workers": 3, "methods": [entry], **fields})

    return make


@pytest.fixture
def out(stub, tmp_path, monkeypatch):
    """A results folder, with a launcher that does not wait for anything."""
    load_plugin(TUNING_TESTS / "sleeping_method.py")
    monkeypatch.setattr(slurm_trials, "FILES_SECONDS", 0.0)
    monkeypatch.setattr(slurm_trials, "look_seconds", lambda: 0.0)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "out"


@pytest.fixture
def jobs_of(stub, instant_trials):
    """`Jobs` of some results folders."""
    return lambda *folders, **options: Jobs(stub, folders, instant_trials, **options)
