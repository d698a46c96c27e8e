"""What a study and its trials hold beside Optuna's own fields: user attributes, read and written as types."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from optuna.trial import FrozenTrial

# Attributes of a study.
DEFINITION = "subnetbench"
INPUT_SECONDS = "input_seconds"
# Attributes of trials.
OUTCOME = "outcome"
REASON = "reason"
SAME_AS = "same_as"
RETRY_OF = "retry_of"
ENQUEUED = "enqueued"
WARM = "warm_start"
AXIS = "axis"


@dataclass(frozen=True)
class RunTimes:
    """A run of a trial: when it got its slot and gave it back, in seconds since the epoch."""

    run_id: str
    started: float
    ended: float


@dataclass(frozen=True)
class TrialOutcome:
    """What came of a trial: means over its seeds by metric, how far it is beyond each constraint, and what it cost.

    `device_seconds` are processes x seconds of each run, by run id: a run that two trials share counts once.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    excess: Mapping[str, float] = field(default_factory=dict)
    device_seconds: Mapping[str, float] = field(default_factory=dict)
    runs: tuple[RunTimes, ...] = ()

    @property
    def feasible(self) -> bool:
        """Whether it keeps all constraints."""
        return all(beyond <= 0 for beyond in self.excess.values())

    def to_json(self) -> dict[str, Any]:  # open: plain JSON
        runs = [[run.run_id, run.started, run.ended] for run in self.runs]
        return {
            "values": dict(self.values),
            "excess": dict(self.excess),
            "device_seconds": dict(self.device_seconds),
            "runs": runs,
        }

    @classmethod
    def of(cls, trial: FrozenTrial) -> "TrialOutcome":
        """The outcome of a trial; empty while there is none."""
        plain = trial.user_attrs.get(OUTCOME, {})
        # Version 0.1 called the values figures.
        values = plain.get("values", plain.get("figures", {}))
        runs = tuple(RunTimes(*run) for run in plain.get("runs", ()))
        return cls(values, plain.get("excess", {}), plain.get("device_seconds", {}), runs)


@dataclass(frozen=True)
class FailureReason:
    """Why a trial failed: `kind` is the reason of its run's failure, or `invalid`, `no-metric` or `nan`."""

    kind: str
    message: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def of(cls, trial: FrozenTrial) -> "FailureReason | None":
        """The reason of a failed trial; None where none is known."""
        plain = trial.user_attrs.get(REASON)
        return None if plain is None else cls(str(plain.get("kind")), str(plain.get("message")))


def same_as(trial: FrozenTrial) -> int | None:
    """The number of the earlier trial of the same configuration whose result this one took over."""
    return _number(trial, SAME_AS)


def retry_of(trial: FrozenTrial) -> int | None:
    """The number of the trial whose processes died and that this one tries again."""
    return _number(trial, RETRY_OF)


def is_own(trial: FrozenTrial) -> bool:
    """Whether a trial was proposed for its study, not taken from an earlier one."""
    return WARM not in trial.user_attrs


def is_comparable(trial: FrozenTrial) -> bool:
    """Whether a pruner may compare others with a trial: one of its study's own that is under way or has reported."""
    return is_own(trial) and (bool(trial.intermediate_values) or not trial.state.is_finished())


def _number(trial: FrozenTrial, name: str) -> int | None:
    value = trial.user_attrs.get(name)
    return None if value is None else int(value)
