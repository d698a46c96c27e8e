"""Waiting for a file lock, with an end."""

import fcntl
import time

_POLL_SECONDS = 0.1


def locked_within(descriptor: int, seconds: float) -> bool:
    """Lock an open file for this process alone; False when somebody else still holds it after `seconds`.

    The lock goes with the last descriptor of this opening of the file, also when its processes are killed.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
