"""The launcher inside a job: a request to stop reaches ranks however young they are."""

import signal

import pytest

from subnetbench.harness.execution.devices import Devices
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.execution.slurm.task_launchers import TaskLauncher, start_fork_server
from subnetbench.harness.runs.folder import RunFolder


@pytest.mark.slow
def test_a_rank_that_has_just_been_started_hears_that_it_is_to_stop(tiny_spec, tmp_path):
    start_fork_server(signal.SIGTERM, signal.SIGUSR2)
    spec = tiny_spec(epochs=200)
    said = []
    settings = RunSettings(data_root=tmp_path, trackers=())
    launcher = TaskLauncher(tmp_path, settings, Devices(1), on_event=lambda *event: said.append(event))
    launcher.submit(spec)
    launcher.poll()
    launcher.stop_all()
    assert launcher.statuses == {spec.run_id: "interrupted"}
    assert said[-1] == (spec.run_id, "interrupted", "")
    assert RunFolder(tmp_path, spec.run_id).last_checkpoint.exists()
