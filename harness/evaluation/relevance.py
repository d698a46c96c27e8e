"""Which gallery items are right for which query, and which are left out of its ranking."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch

from subnetbench.harness.core.errors import DataError, UserError
from subnetbench.harness.data.splits import GroundTruth, Split
from subnetbench.harness.evaluation.search import hide

Difficulty = Literal["easy", "medium", "hard"]


@dataclass(frozen=True)
class Relevance:
    """Positives and ignored items of every query, by gallery index.

    Queries with the same positives share a group: `members[starts[g] : starts[g + 1]]` are the sorted gallery
    indices of group g, `group[i]` is query i's group (-1: no positives). `own[i]` is the gallery index of query
    i's own image or -1; it is never a positive. `ignored[i]` are further gallery indices that are taken out of
    query i's ranking (none of them in its group).
    """

    gallery_size: int
    group: np.ndarray
    members: np.ndarray
    starts: np.ndarray
    own: np.ndarray | None = None
    ignored: tuple[np.ndarray, ...] | None = None

    @classmethod
    def from_labels(
        cls,
        query_labels: np.ndarray,
        gallery_labels: np.ndarray | None = None,
        own: np.ndarray | None = None,
    ) -> Self:
        """Positives are the gallery items with the query's label.

        Without `gallery_labels` the queries are their own gallery: `own` is 0..n-1. It has to be given where two
        networks embed the same images as queries and as gallery. Raises `DataError` for an empty gallery and for
        own images outside it.
        """
        query_labels = np.asarray(query_labels)
        if gallery_labels is None:
            gallery_labels, own = query_labels, np.arange(len(query_labels))
        if not len(gallery_labels):
            raise DataError("the gallery is empty")
        if own is not None and not (
            len(own) == len(query_labels) and np.all((own >= -1) & (own < len(gallery_labels)))
        ):
            raise DataError(f"own images do not fit {len(query_labels)} queries and {len(gallery_labels)} items")
        classes, of_item = np.unique(np.asarray(gallery_labels), return_inverse=True)
        sizes = np.bincount(of_item, minlength=len(classes))
        group = np.minimum(np.searchsorted(classes, query_labels), len(classes) - 1)
        group = np.where(classes[group] == query_labels, group, -1)
        return cls(
            gallery_size=len(gallery_labels),
            group=group,
            members=np.argsort(of_item, kind="stable"),
            starts=np.concatenate([[0], np.cumsum(sizes)]),
            own=own,
        )

    @classmethod
    def settings(cls, split: Split) -> dict[str, Self]:
        """Every setting in which a split is scored, by the prefix of its metrics; the main one has the prefix "".

        The relevant items are those of its ground truth, else those with the label of the query, but for its own file.
        """
        gallery, truth = split.gallery, split.ground_truth
        if gallery is None or truth is None:
            own = split.own_in_gallery()
            return {"": cls.from_labels(split.labels, None if gallery is None else gallery.labels, own)}
        return {
            prefix: cls.from_lists(setting.positives, setting.ignored, len(gallery))
            for prefix, setting in truth.items()
        }

    @classmethod
    def from_lists(
        cls,
        positives: Sequence[Sequence[int] | np.ndarray],
        ignored: Sequence[Sequence[int] | np.ndarray] | None,
        gallery_size: int,
    ) -> Self:
        """From explicit gallery indices for each query; an ignored item is not a positive.

        Raises `DataError` for indices outside the gallery.
        """
        junk = [_indices(items, gallery_size) for items in ignored or [[]] * len(positives)]
        if len(junk) != len(positives):
            raise DataError(f"{len(positives)} queries have positives, but {len(junk)} have ignored items")
        kept = [np.setdiff1d(_indices(items, gallery_size), out) for items, out in zip(positives, junk, strict=True)]
        return cls(
            gallery_size=gallery_size,
            group=np.arange(len(kept)),
            members=np.concatenate([np.empty(0, dtype=np.int64), *kept]),
            starts=np.cumsum([0, *map(len, kept)]),
            ignored=tuple(junk),
        )

    def __len__(self) -> int:
        """The number of queries."""
        return len(self.group)

    @property
    def counts(self) -> np.ndarray:
        """The number of positives of every query, int64 (q,)."""
        sizes = np.append(np.diff(self.starts), 0)[self.group]
        if self.own is not None:
            sizes = sizes - self._own_is_member()
        counts: np.ndarray = sizes
        return counts

    def positives(self, queries: np.ndarray) -> np.ndarray:
        """Gallery indices (len(queries), most) int64 of the positives, one row a query, padded with -1."""
        group = self.group[queries]
        sizes = np.append(np.diff(self.starts), 0)[group]
        columns = np.arange(sizes.max(initial=0))
        inside = columns < sizes[:, None]
        items = np.full(inside.shape, -1, dtype=np.int64)
        items[inside] = self.members[(self.starts[group][:, None] + columns)[inside]]
        if self.own is not None:
            items[items == self.own[queries][:, None]] = -1
        return items

    def hide_ignored(self, scores: torch.Tensor, queries: np.ndarray) -> None:
        """Set to -inf, in the `scores` (len(queries), g) of these queries, what is taken out of their rankings."""
        if self.own is not None:
            hide(scores, torch.from_numpy(self.own[queries]).to(scores.device))
        if self.ignored is not None:
            rows = np.repeat(np.arange(len(queries)), [len(self.ignored[q]) for q in queries])
            columns = np.concatenate([self.ignored[q] for q in queries])
            scores[torch.from_numpy(rows), torch.from_numpy(columns)] = -torch.inf

    def _own_is_member(self) -> np.ndarray:
        assert self.own is not None
        group_of_item = np.empty(self.gallery_size, dtype=np.int64)
        group_of_item[self.members] = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        result: np.ndarray = (self.own >= 0) & (group_of_item[self.own] == self.group)
        return result


def revisited_truth(
    easy: Sequence[np.ndarray], hard: Sequence[np.ndarray], junk: Sequence[np.ndarray], difficulty: Difficulty
) -> GroundTruth:
    """ROxford5k and RParis6k (Radenovic et al. 2018): which lists count depends on the difficulty.

    Easy: easy items are positives, hard and junk ones ignored. Medium: easy and hard are positives, junk is
    ignored. Hard: hard items are positives, easy and junk ones ignored.
    """
    lists = {"easy": easy, "hard": hard, "junk": junk}
    counted = {"easy": ("easy",), "medium": ("easy", "hard"), "hard": ("hard",)}
    if difficulty not in counted:
        raise UserError("no such setting", field="difficulty", value=difficulty, allowed=", ".join(counted))

    def join(names: Sequence[str]) -> tuple[np.ndarray, ...]:
        return tuple(np.concatenate([lists[name][i] for name in names]) for i in range(len(easy)))

    positive = counted[difficulty]
    return GroundTruth(join(positive), join([name for name in lists if name not in positive]))


def _indices(items: Sequence[int] | np.ndarray, gallery_size: int) -> np.ndarray:
    array = np.unique(np.asarray(items, dtype=np.int64))
    if len(array) and not 0 <= array[0] <= array[-1] < gallery_size:
        raise DataError(f"gallery indices {array[0]}..{array[-1]} do not fit a gallery of {gallery_size} items")
    return array
