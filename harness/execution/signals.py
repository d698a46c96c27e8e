"""Signals that ask a process to stop, as a question that is asked when it suits, or as an exception."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM, SIGINT and SIGUSR2 into a question that training asks between steps."""
    received: list[int] = []
    with _handling((signal.SIGTERM, signal.SIGINT, signal.SIGUSR2), lambda number, frame: received.append(number)):
        yield lambda: bool(received)


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM raises `KeyboardInterrupt`, as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _handling((signal.SIGTERM,), interrupt):
        yield


@contextlib.contextmanager
def _handling(numbers: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    previous = {}
    # In another thread than the main one no signals arrive, and none can be asked for.
    with contextlib.suppress(ValueError):
        previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
