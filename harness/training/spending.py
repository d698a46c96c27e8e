"""What a training spends: multiply-accumulates, training images, optimizer steps, energy.

Multiply-accumulates are counted from the operations that are executed (`subnetbench.harness.evaluation.executed`).
Counting slows a step down, so steps of one kind (same stage, same shapes) are counted once, again as the second, the
hundredth, the ten thousandth, and taken as equal between. Where two differ, every further one of the kind is counted.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from subnetbench.harness.distributed.energy import EnergyMeter
from subnetbench.harness.distributed.world import World
from subnetbench.harness.evaluation.executed import counted

# Steps of one kind that are counted, from 0.
_COUNTED = frozenset((0, 1, 99, 9999))
_log = logging.getLogger(__name__)
# Open: the nested values of a state file, before they are given a type.
SpendingState = Mapping[str, Any]


_every_step: ContextVar[bool] = ContextVar("every step is counted", default=False)


@contextmanager
def every_step_counted() -> Iterator[None]:
    """Trainings inside count each of their steps, which is slow and shows that steps of one kind are equal."""
    token = _every_step.set(True)
    try:
        yield
    finally:
        _every_step.reset(token)


@dataclass(frozen=True)
class Spending:
    """Totals over all ranks and attempts; None is what is not known.

    `images` counts a training image each time that a step uses it, whatever the number of views or passes.
    """

    macs: int | None = None
    images: int | None = None
    steps: int | None = None
    joules: float | None = None


@dataclass
class _Kind:
    """Steps that are alike: how many there were, what one takes, and whether they are not alike after all."""

    seen: int = 0
    macs: int = 0
    varies: bool = False

    def take(self, macs: int, name: str) -> None:
        """Note what a step took."""
        if self.seen and macs != self.macs and not self.varies:
            self.varies = True
            _log.info("steps of one kind (%s) take %d and %d MACs: each is counted from now on", name, self.macs, macs)
        self.macs = macs


class SpendingCounter:
    """Counts what this rank spends; `state` and `total` add up all ranks and are called by all of them together."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._known = True
        self._macs = self._images = self._steps = 0
        self._kinds: dict[str, _Kind] = {}
        self._rows: set[str] = set()
        self._joules_before: float | None = 0.0
        self._meter = EnergyMeter(world.device)

    @contextmanager
    def step(self, kind: str, images: int) -> Iterator[None]:
        """A training step of all ranks that uses `images` training images; `kind` has those that execute the same."""
        known = self._kinds.setdefault(kind, _Kind())
        if known.varies or known.seen in _COUNTED or _every_step.get():
            with counted(self._rows) as counter:
                yield
            known.take(counter.total, kind)
        else:
            yield
        known.seen += 1
        self._macs += known.macs
        self._images += images
        self._steps += 1

    @contextmanager
    def work(self, *, again: bool = False) -> Iterator[None]:
        """Whatever else a training executes, counted in full; `again` when a resumed run repeats what was counted."""
        with nullcontext() if again else counted(self._rows) as counter:
            yield
        if counter is not None:
            self._macs += counter.total

    def sample_energy(self) -> None:
        """Read the energy counter, which begins again from 0 now and then."""
        self._meter.sample()

    def projected(self, steps: int, epochs: int) -> float:
        """Multiply-accumulates of this rank's training, had it so many steps like those so far, and between them in each
        epoch what was executed beside them so far."""
        in_steps = sum(kind.seen * kind.macs for kind in self._kinds.values())
        return in_steps / max(self._steps, 1) * steps + (self._macs - in_steps) * epochs

    def total(self) -> Spending:
        """What all ranks spent together."""
        joules = self._joules()
        if not self._known:
            return Spending(joules=joules)
        macs = sum(self.world.gather_objects(self._macs))
        return Spending(macs, self._images, self._steps, joules)

    def state(self) -> SpendingState:
        """For a checkpoint; `load` reads it."""
        kinds = {name: [kind.seen, kind.macs, kind.varies] for name, kind in self._kinds.items()}
        return {
            "known": self._known,
            "images": self._images,
            "steps": self._steps,
            "joules": self._joules(),
            "rows": sorted(self._rows),
            "ranks": self.world.gather_objects({"macs": self._macs, "kinds": kinds}),
        }

    def load(self, state: SpendingState | None) -> None:
        """Resume from a state; None: the checkpoint is of a version that did not count, so the total is not known."""
        if state is None:
            self._known, self._joules_before = False, None
            return
        own = state["ranks"][self.world.rank]
        self._known, self._images, self._steps = state["known"], state["images"], state["steps"]
        self._macs = own["macs"]
        self._kinds = {name: _Kind(*values) for name, values in own["kinds"].items()}
        self._rows = set(state["rows"])
        self._joules_before = state["joules"]

    def _joules(self) -> float | None:
        """Joules of all devices since the run began; a device that ranks share counts once."""
        measured: dict[str, float | None] = dict(self.world.gather_objects((self._meter.device, self._meter.sample())))
        values = [value for device, value in measured.items() if device and value is not None]
        if self._joules_before is None or len(values) < len(measured):
            return None
        return self._joules_before + sum(values)
