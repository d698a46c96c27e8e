"""What the small files in a run's folder say: its heartbeat, why it failed, that it is finished.

All are read as tolerantly as can be: other versions may have written them, and their writers may be killed at any
time. Keys that are missing or of another type have their defaults, keys that are not known are left out.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self

RunStatus = Literal["finished", "failed", "interrupted", "pruned", "blocked", "elsewhere"]
"""How an attempt at a run ended. `blocked`: a run that it starts from failed; `elsewhere`: another process has it."""

RunState = Literal[
    "waiting",
    "running",
    "stale",
    "interrupted",
    "finished",
    "failed",
    "queued",
    "held",
    "waiting for input",
    "starting",
    "stopping",
    "blocked",
    "cancelled",
    "refused",
    "lost",
]
"""Where a run stands: up to `failed` as its own files say, the others as the scheduler says of its job.

`stale` has given no sign of life for a while; `held` will not start by itself; `blocked` starts from a run that
failed; `refused` was not taken by the scheduler; `lost` was submitted, but its job is gone without a word.
"""

STATUSES: tuple[RunStatus, ...] = ("finished", "failed", "interrupted", "pruned", "blocked", "elsewhere")


@dataclass(frozen=True)
class Heartbeat:
    """Where a run stands, written about every second; times in seconds, `time` since the epoch.

    `step` and `total_steps` count over the present stage, `epoch` and `epochs` too. `ended` is set when the attempt
    is over, `seconds` and `train_seconds` count over all attempts. Of the job that drives a tuning, the epochs are
    trials. The values of the first `epochs_tracked` epochs, over all stages, are with the trackers.
    """

    time: float = 0.0
    seconds: float = 0.0
    train_seconds: float = 0.0
    phase: str = ""
    stage: str = ""
    epoch: int | None = None
    epochs: int | None = None
    step: int = 0
    total_steps: int = 0
    ended: RunStatus | None = None
    host: str = ""
    pid: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    epochs_tracked: int = 0

    @property
    def age(self) -> float:
        """Seconds since it was written."""
        return time.time() - self.time

    @property
    def position(self) -> tuple[str, int, str]:
        """How far the run has got: two heartbeats without progress between them have the same."""
        return self.stage, self.step, self.phase

    def now(self, **changes: Any) -> Self:
        """The same, written now, with these fields changed."""
        return replace(self, **{"time": time.time(), **changes})

    def to_json(self) -> dict[str, object]:
        """Plain JSON; what is not known is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> Self:
        """What `to_json` gave, or an earlier version wrote."""
        values = _known(cls, plain)
        if values.get("ended") not in STATUSES:
            values.pop("ended", None)
        return cls(**values)


@dataclass(frozen=True)
class Failure:
    """Why an attempt at a run failed: a short stable word (`nan`, `killed`, ...), and a sentence."""

    reason: str = "unknown"
    message: str = ""
    time: float = field(default_factory=time.time)

    @property
    def first_line(self) -> str:
        """The first line of the message; empty when there is none."""
        return self.message.splitlines()[0] if self.message else ""

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> Self:
        """What `to_json` gave, or an earlier version wrote; without a time it is as old as can be."""
        return cls(**{"time": 0.0, **_known(cls, plain)})


@dataclass(frozen=True)
class Finished:
    """That a run is finished: the file name of its record (empty for the job that drives a tuning), and when.

    `complete` is False for a tuning whose final runs did not all finish.
    """

    record: str = ""
    time: float = field(default_factory=time.time)
    complete: bool = True

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> Self:
        """What `to_json` gave, or an earlier version wrote."""
        return cls(**{"time": 0.0, **_known(cls, plain)})


_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("time", "seconds", "train_seconds"), (int, float)),
    **dict.fromkeys(("epoch", "epochs", "step", "total_steps", "pid", "epochs_tracked"), int),
    **dict.fromkeys(("phase", "stage", "host", "ended", "reason", "message", "record"), str),
    "metrics": dict,
    "complete": bool,
}


def _known(cls: type, plain: Mapping[str, object]) -> dict[str, Any]:  # open: checked by `_TYPES`
    names = {each.name for each in fields(cls)}
    return {name: value for name, value in plain.items() if name in names and isinstance(value, _TYPES[name])}
