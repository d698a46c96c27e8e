"""The values by item behind cells of a leaderboard: of every seed, for the same items."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subnetbench.harness.leaderboard.aggregate import Cells, Rows
from subnetbench.harness.records.item_checks import disagrees
from subnetbench.harness.records.item_store import NOT_STORED, ItemStore
from subnetbench.harness.records.items import ItemSet, ItemValues
from subnetbench.harness.records.read import RecordSet

NO_ITEMS = "the value is not a mean over items"
OTHER_ITEMS = "its seeds were scored on different items"
WRONG_MEANS = "outcomes by item whose mean is not the value in the record"


@dataclass(frozen=True)
class CellItems:
    """Values (seeds, n) of the items `of`, NaN where one does not count; `seeds` (seeds,) are ascending."""

    of: ItemSet
    seeds: np.ndarray
    values: np.ndarray


class ItemScores:
    """Values by item of the cells of one board."""

    def __init__(self, records: RecordSet, scored: Rows, cells: Cells) -> None:
        self.store = ItemStore(records)
        self._scored, self._cells = scored, cells

    def of_cells(self, metric: str, cells: Sequence[int]) -> list[CellItems | str]:
        """For each of some cells of a metric its values by item, or why there are none."""
        if self.store.empty:
            return [NOT_STORED] * len(cells)
        runs = [self._cells.runs[self._cells.part(cell)] for cell in cells]
        self.store.fetch(record for of_cell in runs for record in of_cell.tolist())
        return [self._of_cell(metric, cell, of_cell) for cell, of_cell in zip(cells, runs, strict=True)]

    def _of_cell(self, metric: str, cell: int, runs: np.ndarray) -> CellItems | str:
        row = int(self._cells.row[cell])
        names = (self._scored.split, self._scored.variant, self._scored.gallery_variant)
        split, variant, gallery = (str(column[row]) for column in names)
        part = self._cells.part(cell)
        found: list[ItemValues] = []
        for record, value in zip(runs.tolist(), self._cells.values[part].tolist(), strict=True):
            items = self.store.of(record)
            if isinstance(items, str):
                return items
            values = items.values.get((metric, split, variant, gallery))
            if values is None:
                return NO_ITEMS
            if disagrees(values.mean, value):
                return WRONG_MEANS
            if found and not values.of.same_as(found[0].of):
                return OTHER_ITEMS
            found.append(values)
        seeds = self._cells.seeds[part]
        return CellItems(found[0].of, seeds, np.stack([each.value for each in found]).astype(np.float64))
