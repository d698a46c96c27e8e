"""Messages of runs and jobs go to their output, which is kept in a file."""

import logging
import sys


def log_to_output() -> None:
    """Print messages of this package from `INFO` on, with the time; those of other libraries are left as they are."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("subnetbench")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
