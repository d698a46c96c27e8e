"""What a batch file starts in every task: `python -m subnetbench.harness.launchers.slurm.start JOB_FOLDER`.

The first task writes its own pickle, which names runs and nothing else, so that a job never depends on what the
submitting process did after sbatch. From there on it is submitit's job: signal handlers, `Work`, requeueing.
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    from submitit import JobEnvironment
    from submitit.core.submission import process_job
    from submitit.core.utils import DelayedSubmission

    from subnetbench.harness.launchers.slurm.job import MOST_TIMEOUTS, Work

    folder = Path(sys.argv[1])
    os.environ["SUBMITIT_FOLDER"] = str(folder)
    environment = JobEnvironment()
    if environment.global_rank == 0:
        for leftover in folder.glob(f"{environment.job_id}_*.save_tmp"):
            leftover.unlink(missing_ok=True)
        pickle = environment.paths.submitted_pickle
        if not pickle.exists():
            plan = json.loads((folder / "plan.json").read_text())
            work = DelayedSubmission(Work(), *plan["jobs"][int(str(environment.array_task_id))])
            work.set_timeout(plan["minutes"], MOST_TIMEOUTS)
            beside = pickle.with_suffix(".tmp")
            work.dump(beside)
            beside.rename(pickle)
    process_job(folder)


if __name__ == "__main__":
    main()
