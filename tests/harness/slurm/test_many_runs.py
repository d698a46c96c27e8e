"""A sweep of 500 runs costs the scheduler a handful of calls, and little time beyond them."""

import time

import pytest

from subnetbench.harness.execution.slurm.queue_watch import QueueWatch
from subnetbench.harness.runs.rows import collect


def seconds(work, *arguments):
    """Processor seconds of this process: the clients' own time is not counted, nor a busy machine's."""
    began = time.process_time()
    result = work(*arguments)
    return time.process_time() - began, result


@pytest.mark.slow
def test_500_runs(stub, submitter, plan, tiny_spec, tmp_path):
    specs = [tiny_spec(seed=seed) for seed in range(500)]
    profile = {"max_array_size": 1000}
    dry, outcome = seconds(lambda: submitter(profile).dry_run(plan(specs)))
    assert [len(submission.jobs) for submission, _ in outcome.arrays] == [500]
    assert dry < 2
    assert not stub.calls()

    submitting, outcome = seconds(lambda: submitter(profile).submit(plan(specs)))
    assert [len(submission.jobs) for submission in outcome.submitted] == [500]
    assert submitting < 2
    assert len(stub.calls()) == 1

    def look():
        rows = collect([tmp_path / "results"])
        QueueWatch().look_at_all(rows)
        return rows

    looking, rows = seconds(look)
    assert [row.state for row in rows] == ["queued"] * 500
    assert looking < 0.7
    assert len(stub.calls()) == 2
