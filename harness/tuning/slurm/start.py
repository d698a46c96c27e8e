"""What the driver's batch file starts: `python -m subnetbench.harness.tuning.slurm.start JOB_FOLDER`."""

import signal
import sys
from pathlib import Path

from subnetbench.harness.execution.logs import log_to_output


def main() -> None:
    """Do one turn of the job."""
    # A signal would end the process as long as nothing answers it, and nobody would queue the job again.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    from subnetbench.harness.tuning.slurm.job import DriverJob  # late: signals wait while torch is imported

    log_to_output()
    sys.exit(DriverJob(Path(sys.argv[1])).run())


if __name__ == "__main__":
    main()
