"""A real cluster for the tests of this folder, and sweeps that are submitted to it."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from typer.testing import CliRunner

from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.runs.folder import find_runs
from subnetbench.harness.runs.state import Heartbeat
from subnetbench.harness.runs.state_file import load_state

PROGRAM = Path(sys.executable).with_name("subnetbench")
PLUGIN = Path(__file__).with_name("paced.py")
# With its pauses long enough to be disturbed in the middle of an epoch, short enough for a test.
RUN = {"network": "conv2", "image_size": 8, "batch_size": 16, "epochs": 4}

_spec = importlib.util.spec_from_file_location("slurm_cluster", Path(__file__).with_name("cluster.py"))
cluster_module = importlib.util.module_from_spec(_spec)
sys.modules["slurm_cluster"] = cluster_module
_spec.loader.exec_module(cluster_module)


@pytest.fixture(scope="session")
def cluster():
    """Two nodes with accounting; the tests are skipped where they cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("a cluster on this host needs root")
    missing = cluster_module.missing()
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (packages {', '.join(cluster_module.PACKAGES)})")
    running = cluster_module.Cluster()
    running.start()
    yield running
    running.stop()


def invoke(*arguments):
    """The program in this process: what it printed and its exit status."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    fault = result.exception
    if fault is not None and not isinstance(fault, SubnetbenchError | SystemExit):
        raise fault
    errors = result.stderr + (f"error: {fault}" if isinstance(fault, SubnetbenchError) else "")
    status = fault.exit_status if isinstance(fault, SubnetbenchError) else result.exit_code
    return subprocess.CompletedProcess(arguments, status, result.stdout, errors)


class Sweep:
    """A sweep file in a folder of its own, with what a user would do to it."""

    def __init__(self, cluster, folder, runs, resources=None, plugin=PLUGIN, **variables):
        self.cluster = cluster
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.results = folder / "results" / "test"
        self.plugin = plugin
        content = {
            "name": "test",
            "defaults": {"dataset": "emoji", "config": RUN, "compute": {"device": "cpu"}},
            "resources": {"minutes": 60, "cpus": 1, **(resources or {})},
            "runs": runs,
        }
        (folder / "sweep.yaml").write_text(json.dumps(content))
        self.environment = {
            **cluster.environment,
            "PYTHONSAFEPATH": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "SUBNETBENCH_CHECKPOINT_SECONDS": "1",
            "PACE": "0.03",
            "XDG_CONFIG_HOME": str(folder / "config"),
            **variables,
        }

    def command(self, *arguments):
        plugin = ["--plugin", str(self.plugin)] if arguments[0] in ("sweep", "tune") else []
        return [str(PROGRAM), *plugin, *map(str, arguments)]

    def call(self, *arguments, check=0, apart=False, **variables):
        """Run the program: in this process, which has imported everything already, or `apart`."""
        environment = {**self.environment, **variables}
        if apart:
            done = subprocess.run(
                self.command(*arguments),
                cwd=self.folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        else:
            with patch.dict(os.environ, environment), contextlib.chdir(self.folder):
                done = invoke(*self.command(*arguments)[1:])
        if check is not None:
            assert done.returncode == check, done.stdout + done.stderr
        return done

    def submit(self, *arguments, **options):
        return self.call(*self.submission(*arguments), **options)

    def submission(self, *arguments):
        # The tests may run in a checkout that somebody is working on.
        changes = [] if "--code-changes" in arguments else ["--code-changes", "allow"]
        return ["sweep", "sweep.yaml", "--on", "slurm", "--tracker", "none", *changes, *arguments]

    def rows(self):
        return json.loads(self.call("status", self.results, "--json").stdout)

    def row(self):
        (row,) = self.rows()
        return row

    def runs(self):
        return find_runs(self.results)

    def run(self):
        (run,) = self.runs()
        return run

    def step(self):
        return (self.run().heartbeat() or Heartbeat()).step if self.runs() else 0

    def job(self):
        """The job of the first run, from the ledger: quicker than asking the program."""
        return f"{self.submissions()[-1]['job']}_0"

    def restarts(self):
        """How often SLURM put the job back into the queue."""
        shown = self.cluster.call("squeue", "-hr", "--states=all", "-O", "RestartCnt", "-j", self.job())
        return int(shown.split()[0]) if shown.strip() else 0

    def node(self):
        return self.cluster.call("squeue", "-hr", "-o", "%N", "-j", self.job()).strip()

    def submissions(self):
        return sorted(
            (json.loads(path.read_text()) for path in self.results.glob("slurm/submissions/*.json")),
            key=lambda submission: submission["created"],
        )

    def wait_for(self, what, condition, seconds=250):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return
            time.sleep(0.3)
        logs = "".join(f"\n--- {p.name}\n{p.read_text()[-3000:]}" for p in self.results.rglob("*log*") if p.is_file())
        raise AssertionError(f"{what} did not happen\n{self.call('status', self.results).stdout}{logs}")

    def wait_until_training(self, beyond=30):
        self.wait_for("training", lambda: self.step() > beyond and self.run().last_checkpoint.exists())

    def wait_until_finished(self, seconds=250):
        self.wait_for("the end of its jobs", lambda: not self.jobs_in_queue(), seconds)
        self.wait_for("finishing", lambda: all(run.finished_file.exists() for run in self.runs()), 1)

    def jobs_in_queue(self):
        names = ",".join(each["name"] for each in self.submissions())
        return self.cluster.call("squeue", "-hr", "-o", "%i %T", f"--name={names}").splitlines() if names else []

    def weights(self):
        return load_state(self.run().model_file)["modules"]


@contextlib.contextmanager
def _sweeps(cluster, folder):
    made = []

    def make(runs, name="sweep", **options):
        made.append(Sweep(cluster, folder / name, runs, **options))
        return made[-1]

    yield make
    for each in made:
        if each.results.exists():
            each.call("cancel", each.results, check=None)
            each.wait_for("the end of cancelled jobs", lambda each=each: not each.jobs_in_queue(), 60)


@pytest.fixture
def sweep(cluster, tmp_path):
    """Make a sweep of a list of runs; its jobs are cancelled afterwards."""
    with _sweeps(cluster, tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def make_sweep(cluster, tmp_path_factory):
    """The same for sweeps that outlive a test."""
    with _sweeps(cluster, tmp_path_factory.mktemp("module")) as make:
        yield make


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Weights of the standard run when nothing happens to it, by its number of processes; trained on this machine."""
    known = {}

    def weights(processes=1, **config):
        key = (processes, *sorted(config.items()))
        if key not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            fields = [f"--set={name}={value}" for name, value in {**RUN, **config}.items()]
            options = ["--processes", str(processes), "--device", "cpu", "--tracker", "none", "--out", str(folder)]
            with patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
                done = invoke("--plugin", PLUGIN, "run", "paced", "emoji", *fields, *options)
            assert done.returncode == 0, done.stdout + done.stderr
            (run,) = find_runs(folder)
            known[key] = load_state(run.model_file)["modules"]
        return known[key]

    return weights


@pytest.fixture
def same_weights():
    """Check that two sets of weights agree in every bit."""

    def check(found, expected):
        assert found.keys() == expected.keys()
        for name in expected:
            assert torch.equal(found[name], expected[name]), name

    return check
