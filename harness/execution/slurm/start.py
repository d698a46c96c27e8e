"""What a batch file starts in every task: `python -m subnetbench.harness.execution.slurm.start JOB_FOLDER`.

The first task writes its own pickle, which names runs and nothing else, so that a job never depends on what the
submitting process did after sbatch. From there on it is submitit's job: signal handlers, `Work`, requeueing.
"""

import os
import sys
from pathlib import Path

from subnetbench.harness.execution.logs import log_to_output
from subnetbench.harness.execution.slurm import submitit_adapter
from subnetbench.harness.execution.slurm.job import MOST_TIMEOUTS, Work
from subnetbench.harness.execution.slurm.job_plan import JobPlan


def main() -> None:
    """Do the work of this task."""
    folder = Path(sys.argv[1])
    log_to_output()
    os.environ["SUBMITIT_FOLDER"] = str(folder)
    environment = submitit_adapter.JobEnvironment()
    if environment.global_rank == 0:
        for leftover in folder.glob(f"{environment.job_id}_*.save_tmp"):
            leftover.unlink(missing_ok=True)
        pickle = environment.paths.submitted_pickle
        if not pickle.exists():
            plan = JobPlan.read(folder)
            run_ids = plan.jobs[int(str(environment.array_task_id))]
            submitit_adapter.write_work(pickle, Work(), run_ids, plan.minutes, MOST_TIMEOUTS)
    submitit_adapter.do_job(folder)


if __name__ == "__main__":
    main()
