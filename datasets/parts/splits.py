"""Stratified draws that several data sets share: validation from training, and `train_size`."""

import numpy as np

from subnetbench.harness.config import DatasetConfig
from subnetbench.harness.data import Split
from subnetbench.harness.errors import UserError
from subnetbench.harness.streams import sample_uniforms, stream_key


def stratified_order(labels: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """All indices of `labels` (n,) in a random order of which every beginning has the proportions of the whole.

    A beginning holds every class as soon as it is as long as there are classes; longer ones contain shorter ones.
    """
    chance = sample_uniforms(stream_key(seed, "split", purpose), np.arange(len(labels)), 1)[:, 0]
    by_class = np.lexsort((chance, labels))
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(labels), np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    return np.lexsort((chance, rank / counts[labels]))


def hold_out(labels: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Stratified training and validation indices, each in ascending order; `size` of them for validation."""
    order = stratified_order(labels, seed, "validation")
    return np.sort(order[size:]), np.sort(order[:size])


def limit_training(split: Split, config: DatasetConfig) -> Split:
    """The training split cut to `config.train_size`, stratified. Raises `UserError` if a class would be empty."""
    size = config.train_size
    if size is None or size == len(split):
        return split
    if not split.num_classes <= size <= len(split):
        raise UserError(
            "a training subset holds every class and no more than there is",
            field="data.train_size",
            value=size,
            allowed=f"{split.num_classes} to {len(split)}",
        )
    return split.subset(np.sort(stratified_order(split.labels, config.split_seed, "train_size")[:size]))
