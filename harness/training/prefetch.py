"""Batches rendered ahead of the step that uses them, by a thread, where images come from files.

Decoding releases the interpreter lock, so threads do; there are no worker processes that could inherit signal
handlers or be left behind. Images that are already in memory are rendered when they are needed.
"""

import queue
import threading
from collections.abc import Callable, Generator, Sequence

import numpy as np

from subnetbench.harness.data.images import Images
from subnetbench.harness.method.step import Batch

AHEAD = 2


def batches_ahead(
    render: Callable[[np.ndarray], Batch], plan: Sequence[np.ndarray], images: Images
) -> Generator[Batch, None, None]:
    """`render(indices)` for every entry of `plan`, in order."""
    if images.tensor is not None:
        for indices in plan:
            yield render(indices)
        return
    ready: queue.Queue[Batch | BaseException] = queue.Queue(maxsize=AHEAD)
    stopped = threading.Event()

    def work() -> None:
        try:
            for indices in plan:
                item: Batch | BaseException = render(indices)
                while not stopped.is_set():
                    try:
                        ready.put(item, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if stopped.is_set():
                    return
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=work, name="batches-ahead", daemon=True)
    thread.start()
    try:
        for _ in plan:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
