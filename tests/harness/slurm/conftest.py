"""Stub SLURM clients on the PATH: they keep a queue in a file and write down how they were called."""

import os
import textwrap
from pathlib import Path

import pytest

from subnetbench.harness.clusters import Cluster
from subnetbench.harness.launchers.slurm.resources import SweepResources, resources_for
from subnetbench.harness.launchers.slurm.submitting import Submitter
from subnetbench.harness.planning import plan_runs

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

    def make(profile=None, sweep=None, wishes=None, **options):
        results = tmp_path / "results"
        results.mkdir(exist_ok=True)
        cluster = Cluster.parse(profile or {})
        section = SweepResources.parse(sweep or {})
        settings = {"data_root": tmp_path / "data", "trackers": (), "sweep": "test", "plugins": ()}
        return Submitter(
            results,
            "test",
            settings,
            cluster,
            lambda spec: resources_for(spec, cluster, section, (wishes or {}).get(spec.run_id)),
            **options,
        )

    return make


@pytest.fixture
def plan(tmp_path):
    return lambda specs, **options: plan_runs(specs, tmp_path / "results", **options)
