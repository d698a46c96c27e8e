"""The one unit in which subnetworks are sized, and the names that go with it."""

import re
from dataclasses import dataclass

from subnetbench.harness.method import UserError

DENSE = "dense"
_NAME = re.compile(r"capacity_(\d*\.?\d+)")


@dataclass(frozen=True, order=True)
class Capacity:
    """The share of weights that a subnetwork keeps, above 0, to 1; raises `UserError` for any other share."""

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError("not a share of weights to keep", field="capacity", value=self.share, allowed="> 0, <= 1")

    @classmethod
    def from_name(cls, name: str) -> "Capacity | None":
        """The capacity that a variant called `capacity_C` has; None for a name of another form.

        Raises:
            UserError: When C is not above 0, to 1.
        """
        found = _NAME.fullmatch(name)
        return None if found is None else cls(float(found[1]))

    @property
    def name(self) -> str:
        """The name of a variant: `dense`, or `capacity_0.2`."""
        return DENSE if self.share == 1 else f"capacity_{self.share:g}"

    @property
    def sparsity(self) -> float:
        """The share to remove; rounded, so that 0.8 gives 0.2 and not 0.19999999999999996."""
        return round(1 - self.share, 12)
