"""What data sets share in making splits: stratified draws, renumbered classes, and the digest of it all."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from subnetbench.harness.data import (
    Dataset,
    DatasetConfig,
    ImageFiles,
    Split,
    Task,
    TaskData,
    UserError,
    digest_of,
    sample_uniforms,
    stream_key,
)


def stratified_order(labels: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """All indices of `labels` (n,) in a random order of which every beginning has the proportions of the whole.

    A beginning holds every class as soon as it is as long as there are classes; longer ones contain shorter ones.
    """
    chance = sample_uniforms(stream_key(seed, "split", purpose), np.arange(len(labels)), 1)[:, 0]
    by_class = np.lexsort((chance, labels))
    counts = np.bincount(labels)
    rank = np.empty(len(labels), np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.lexsort((chance, rank / counts[labels]))


def hold_out(split: Split, size: int, seed: int, purpose: str) -> tuple[Split, Split]:
    """`split` without a stratified draw of `size` samples, and that draw, both in their old order."""
    order = stratified_order(split.labels, seed, purpose)
    return split.subset(np.sort(order[size:])), split.subset(np.sort(order[:size]), purpose)


def limit_training(train: Split, config: DatasetConfig) -> Split:
    """The training split cut to `config.train_size`, stratified.

    Raises:
        UserError: If a class would be empty.
    """
    size = config.train_size
    if size is None:
        return train
    if not train.num_classes <= size <= len(train):
        raise UserError(
            "a training subset holds every class and no more than there is",
            field="data.train_size",
            value=size,
            allowed=f"{train.num_classes} to {len(train)}",
        )
    return train.subset(np.sort(stratified_order(train.labels, config.split_seed, "train_size")[:size]))


def renumbered(split: Split) -> Split:
    """The same samples with labels 0..K-1 over the classes that they have."""
    present, labels = np.unique(split.labels, return_inverse=True)
    return replace(split, labels=labels.astype(np.int64), classes=tuple(split.classes[i] for i in present))


def findable(split: Split) -> Split:
    """`split` without images that are alone in their class, renumbered: a query needs something to find."""
    counts = np.bincount(split.labels)
    return renumbered(split.subset(np.flatnonzero(counts[split.labels] >= 2)))


def task_data(
    dataset: Dataset,
    task: Task,
    splits: tuple[Split, Split, Split],
    *,
    protocol: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    image_size: int | None = None,
    base: Path | None = None,
) -> TaskData:
    """Training, validation and test put together with their digest; `base` is the folder of image files."""
    train, validation, test = splits
    return TaskData(
        dataset=dataset.name,
        task=task,
        train=train,
        validation=validation,
        test=test,
        image_size=image_size,
        mean=mean,
        std=std,
        protocol=protocol,
        digest=digest_of_splits(protocol, splits, base),
        options=dataset.config.model_dump(mode="json"),
    )


def digest_of_splits(protocol: str, splits: Sequence[Split], base: Path | None = None) -> str:
    """A digest of how the splits were made and of all that they hold.

    Of image files it takes the paths below `base` and the lengths, not the bytes: reading a large collection at
    every start would cost more than many a run.
    """
    parts: list[object] = [protocol]
    for split in [*splits, *(split.gallery for split in splits if split.gallery is not None)]:
        parts += [split.labels, split.classes, split.captions]
        if isinstance(split.images, ImageFiles):
            assert base is not None
            parts += [(path.relative_to(base).as_posix(), path.stat().st_size) for path in split.images.paths]
            parts += [] if split.images.boxes is None else [split.images.boxes]
        else:
            parts.append(split.images.tensor)
        for prefix, truth in (split.ground_truth or {}).items():
            parts += [prefix, *truth.positives, "ignored", *truth.ignored]
    return digest_of(*parts)
