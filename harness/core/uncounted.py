"""What is executed for a training but is no part of it, such as the rendering of images by matrix products."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_uncounted: ContextVar[bool] = ContextVar("uncounted", default=False)


@contextmanager
def uncounted() -> Iterator[None]:
    """Whatever is executed inside is not among the multiply-accumulates of a training."""
    token = _uncounted.set(True)
    try:
        yield
    finally:
        _uncounted.reset(token)


def uncounted_now() -> bool:
    """Whether an `uncounted` block is open."""
    return _uncounted.get()
