"""Scores by item: the outcome of each test item behind a score that is a mean over items.

An item is an image, a query or a caption of a split. What is kept lies beside the records, a file a record (see
`items_file.py`); here is only what evaluation hands over, without pyarrow and torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ScoreKey = tuple[str, str, str, str]
"""Metric, split, variant, gallery variant: what names a score within a record."""


@dataclass(frozen=True, eq=False)
class ItemSet:
    """The items that scores are means over; all arrays are (n,).

    `kind` says what they are: `image`, `query` or `caption`. `item` is the index of each in its split (of a caption, in
    the sorted or listed captions), `label` its class as an index into `classes`. Items of one `cluster` are not
    independent of each other (drawings of one concept, captions of one image): intervals over items draw whole clusters.

    Raises:
        ValueError: The arrays do not fit each other.
    """

    kind: str
    item: np.ndarray
    label: np.ndarray
    classes: tuple[str, ...]
    cluster: np.ndarray

    def __post_init__(self) -> None:
        for name in ("item", "label", "cluster"):
            array = np.asarray(getattr(self, name), np.int32)
            if array.shape != (len(self.item),):
                raise ValueError(f"{name} of items is {array.shape}, not ({len(self.item)},)")
            object.__setattr__(self, name, array)
        if len(self) and not 0 <= int(self.label.min()) <= int(self.label.max()) < len(self.classes):
            raise ValueError(f"labels of items do not fit {len(self.classes)} classes")

    def __len__(self) -> int:
        return len(self.item)

    def same_as(self, other: "ItemSet") -> bool:
        """Whether both are the same items with the same classes and clusters."""
        return self is other or (
            self.kind == other.kind
            and self.classes == other.classes
            and all(np.array_equal(getattr(self, name), getattr(other, name)) for name in ("item", "label", "cluster"))
        )


@dataclass(frozen=True, eq=False)
class ItemValues:
    """The values (n,) float32 of the items `of`, whose mean is a score; NaN where an item does not count (a query
    without positives).

    Raises:
        ValueError: There is not one value for each item.
    """

    of: ItemSet
    value: np.ndarray

    def __post_init__(self) -> None:
        value = np.asarray(self.value, np.float32)
        if value.shape != (len(self.of),):
            raise ValueError(f"{value.shape} values for {len(self.of)} items")
        object.__setattr__(self, "value", value)

    @property
    def mean(self) -> float:
        """The score: the mean over the items that count; NaN where none does."""
        counted = self.value[~np.isnan(self.value)]
        return float(counted.mean(dtype=np.float64)) if len(counted) else float("nan")


@dataclass(frozen=True)
class Items:
    """All scores by item of one record."""

    values: Mapping[ScoreKey, ItemValues]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def sets(self) -> Sequence[ItemSet]:
        """The sets of items, each once."""
        return list({id(each.of): each.of for each in self.values.values()}.values())
