"""Which items are positives: edges that the metrics' tests do not reach."""

import numpy as np
import pytest
import torch

from subnetbench.harness.core.errors import DataError, UserError
from subnetbench.harness.data.images import TensorImages
from subnetbench.harness.data.splits import Split
from subnetbench.harness.evaluation.relevance import Relevance, revisited_truth


def split_of(labels: list[int], gallery: Split | None = None) -> Split:
    images = TensorImages(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8))
    return Split(name="test", images=images, labels=np.array(labels), gallery=gallery)


def test_a_split_is_its_own_gallery_unless_it_has_one():
    alone = Relevance.settings(split_of([0, 1, 0]))[""]
    assert alone.counts.tolist() == [1, 0, 1]
    assert alone.positives(np.array([2, 0])).tolist() == [[0, -1], [-1, 2]]
    apart = Relevance.settings(split_of([0, 1, 0], split_of([1, 0, 1, 5, 1])))[""]
    assert apart.counts.tolist() == [1, 3, 1]
    assert apart.positives(np.array([1, 2])).tolist() == [[0, 2, 4], [1, -1, -1]]


def test_labels_need_not_be_dense():
    relevance = Relevance.from_labels(np.array([-7, 10**12, 3]), np.array([10**12, 10**12, -7]))
    assert relevance.counts.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("difficulty", "positives", "ignored"),
    [("easy", [1, 2], [4, 5, 7]), ("medium", [1, 2, 4], [5, 7]), ("hard", [4], [1, 2, 5, 7])],
)
def test_revisited_settings(difficulty, positives, ignored):
    lists = [[np.array(items)] for items in ([1, 2], [4], [7, 5])]
    truth = revisited_truth(*lists, difficulty)
    relevance = Relevance.from_lists(truth.positives, truth.ignored, 8)
    assert relevance.positives(np.array([0])).tolist() == [positives]
    scores = torch.zeros(1, 8)
    relevance.hide_ignored(scores, np.array([0]))
    assert scores[0].isneginf().nonzero().squeeze(1).tolist() == ignored


def test_bad_lists_are_refused():
    for items in ([5], [-1]):
        with pytest.raises(DataError, match="do not fit a gallery of 5 items"):
            Relevance.from_lists([[0], items], None, 5)
        with pytest.raises(DataError, match="do not fit a gallery of 5 items"):
            Relevance.from_lists([[0]], [items], 5)
    with pytest.raises(DataError, match="2 queries have positives, but 1"):
        Relevance.from_lists([[0], [1]], [[2]], 5)
    with pytest.raises(UserError, match=r"difficulty.*'extreme'.*easy, medium, hard"):
        revisited_truth([np.array([0])], [np.array([1])], [np.array([2])], "extreme")
    with pytest.raises(DataError, match="own images"):
        Relevance.from_labels(np.array([0, 1]), np.array([0, 1]), own=np.array([0, 2]))
    with pytest.raises(DataError, match="gallery is empty"):
        Relevance.from_labels(np.array([0]), np.array([], dtype=np.int64))
