"""Which validation was the best, and when to stop waiting for a better one."""

import math

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.training.state import SelectionState


class Selection:
    """Keeps the first best of a sequence of validation values.

    Only a strictly better value counts as an improvement, so of equal values the first stays the best; NaN never
    improves. `patience` is the number of values in a row without an improvement after which `should_stop` turns
    true; None waits for ever.
    """

    def __init__(self, patience: int | None = None, higher_is_better: bool = True) -> None:
        if patience is not None and patience < 1:
            raise UserError("must be positive", field="patience", value=patience, allowed="1, 2, ... or none")
        self.patience = patience
        self.higher_is_better = higher_is_better
        self.seen = 0
        self.best_index: int | None = None
        self.best_value: float | None = None

    def update(self, value: float) -> bool:
        """Take the next value; True when it is the best so far."""
        index, self.seen = self.seen, self.seen + 1
        if math.isnan(value) or (self.best_value is not None and not self._better(value, self.best_value)):
            return False
        self.best_index, self.best_value = index, value
        return True

    @property
    def should_stop(self) -> bool:
        """Whether the last `patience` values brought no improvement."""
        waited = self.seen - (0 if self.best_index is None else self.best_index + 1)
        return self.patience is not None and waited >= self.patience

    @property
    def state(self) -> SelectionState:
        """Plain numbers, enough to resume after an interruption."""
        return SelectionState(self.seen, self.best_index, self.best_value)

    @state.setter
    def state(self, state: SelectionState) -> None:
        self.seen, self.best_index, self.best_value = state.seen, state.best_index, state.best_value

    def _better(self, value: float, other: float) -> bool:
        return value > other if self.higher_is_better else value < other
