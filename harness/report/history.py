"""Learning curves of a run, read from the TensorBoard files that it left."""

import struct
from collections.abc import Iterator
from pathlib import Path

MAX_FILE_BYTES = 2**25
MAX_FILES = 16
_FRAME = struct.Struct("<QI")  # length and its checksum; the payload is followed by a checksum of its own
_CHECKSUM_BYTES = 4

History = dict[str, tuple[list[int], list[float]]]
"""For each tag, such as `train/loss`: epochs done, ascending, and the value after each."""


def read_history(run_folder: Path, points: int = 100) -> History:
    """The scalars below `<run folder>/trackers`, at most `points` of each; empty where there are none.

    A run that was interrupted leaves several files; of a step that was written twice, the later file counts. Of a
    file that ends in the middle of an event, what is before it is read.
    """
    found: dict[str, dict[int, float]] = {}
    files = sorted((run_folder / "trackers").glob("**/events.out.tfevents.*"))
    for file in files[:MAX_FILES]:
        for tag, step, value in _scalars(file):
            found.setdefault(tag, {})[step] = value
    return {tag: _thin(dict(sorted(values.items())), points) for tag, values in sorted(found.items())}


def _scalars(file: Path) -> Iterator[tuple[str, int, float]]:
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            return
        content = file.read_bytes()
    except OSError:
        return
    at = 0
    while at + _FRAME.size <= len(content):
        length, _ = _FRAME.unpack_from(content, at)
        begin = at + _FRAME.size
        if begin + length > len(content):
            return
        try:
            event = Event.FromString(content[begin : begin + length])
        except DecodeError:
            return
        for value in event.summary.value:
            if value.HasField("simple_value"):
                yield value.tag, event.step, value.simple_value
        at = begin + length + _CHECKSUM_BYTES


def _thin(values: dict[int, float], points: int) -> tuple[list[int], list[float]]:
    """Every so many of the points, the last one always."""
    steps = list(values)
    if len(steps) > points:
        stride = -(-len(steps) // points)
        steps = sorted({*steps[::stride], steps[-1]})
    return steps, [values[step] for step in steps]
