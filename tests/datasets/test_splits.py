"""Stratified draws and renumbered classes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subnetbench.datasets.parts.splits import findable, hold_out, limit_training, stratified_order
from subnetbench.harness.core.config import DatasetConfig
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.data.images import TensorImages
from subnetbench.harness.data.splits import Split

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(lambda x: np.unique(x, return_inverse=True)[1])


def split_of(labels: np.ndarray) -> Split:
    """One image a label, whose pixel is its number."""
    pixels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    names = tuple(f"class {number}" for number in range(int(labels.max()) + 1))
    return Split(name="train", images=TensorImages(pixels), labels=labels, classes=names)


@given(LABELS, st.integers(0, 3))
def test_every_beginning_has_the_proportions_of_the_whole(labels: np.ndarray, seed: int) -> None:
    order = stratified_order(labels, seed, "test")
    assert sorted(order) == list(range(len(labels)))
    whole = np.bincount(labels)
    for size in range(1, len(labels) + 1):
        drawn = np.bincount(labels[order[:size]], minlength=len(whole))
        # No class is more than one sample ahead of the share that all others have.
        assert ((drawn - 1) / whole).max() <= (drawn / whole).min()
        assert size < len(whole) or (drawn > 0).all()


@given(LABELS)
def test_order_depends_on_seed_and_purpose_alone(labels: np.ndarray) -> None:
    assert (stratified_order(labels, 1, "a") == stratified_order(labels.copy(), 1, "a")).all()


def test_seeds_and_purposes_draw_differently() -> None:
    labels = np.arange(100) % 2
    orders = {tuple(stratified_order(labels, *which)) for which in ((0, "a"), (1, "a"), (0, "b"))}
    assert len(orders) == 3


@given(LABELS, st.data())
def test_hold_out_parts_the_samples(labels: np.ndarray, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, len(labels)))
    rest, drawn = hold_out(split_of(labels), size, 0, "validation")
    assert (len(drawn), drawn.name) == (size, "validation")
    numbers = [part.images.tensor.flatten().tolist() for part in (rest, drawn)]
    assert sorted(numbers[0] + numbers[1]) == list(range(len(labels)))
    for part, kept in zip((rest, drawn), numbers, strict=True):
        assert part.labels.tolist() == labels[kept].tolist()
        assert kept == sorted(kept)


def test_smaller_training_subsets_are_part_of_larger_ones() -> None:
    split = split_of(np.arange(60) % 3)
    drawn = [limit_training(split, DatasetConfig(train_size=size)) for size in (3, 20, 60)]
    numbers = [set(each.images.tensor.flatten().tolist()) for each in drawn]
    assert numbers[0] < numbers[1] < numbers[2]
    with pytest.raises(UserError, match="3 to 60"):
        limit_training(split, DatasetConfig(train_size=61))


def test_images_alone_in_their_class_are_left_out() -> None:
    found = findable(split_of(np.array([2, 0, 2, 3, 3, 1])))
    assert found.images.tensor.flatten().tolist() == [0, 2, 3, 4]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.classes == ("class 2", "class 3")
