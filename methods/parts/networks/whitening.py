"""Closed-form whitening of descriptors, to start a whitening layer from data.

Every function returns (mean, projection) in float64, for `y = projection @ (x - mean)`; the first k rows of the
projection reduce to k dimensions. Rows are ordered by falling eigenvalue; the sign of a row is arbitrary.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from subnetbench.harness.method import DataError, numpy_generator


def pca_whitening(
    descriptors: Tensor, dim: int | None = None, *, shrinkage: float | Literal["smallest"] = 0.0
) -> tuple[Tensor, Tensor]:
    """PCA whitening of descriptors (n, c): projection diag(l)^-1/2 V^T of the covariance's eigenvalues l.

    With `shrinkage` b the eigenvalues are (1 - b) l + b; `smallest` takes b as the smallest of them, which bounds
    how much a direction is amplified. Only the first `dim` rows are returned (all by default).

    Raises:
        DataError: When the descriptors do not vary in that many directions and nothing is added to the eigenvalues.
    """
    mean, centred = _centre(descriptors)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    values, vectors = values.flip(0), vectors.flip(1)
    if shrinkage == "smallest":
        shrinkage = float(values[-1])
    values = ((1 - shrinkage) * values + shrinkage)[:dim]
    if values[-1] <= 1e-12 * values[0]:
        raise DataError(f"{len(descriptors)} descriptors do not vary in {len(values)} directions")
    return mean, vectors.T[:dim] / values.sqrt().unsqueeze(1)


def supervised_whitening(descriptors: Tensor, queries: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """Whitening learned from matching pairs (Mikolajczyk and Matas 2007; Radenovic et al. 2018).

    `queries` and `positives` (m,) are rows of `descriptors` (n, c) that match. The differences within pairs are
    whitened, then the descriptors rotated to their principal axes. The mean is that of the query members.
    """
    descriptors = descriptors.double()
    mean = descriptors[queries].mean(dim=0)
    differences = descriptors[queries] - descriptors[positives]
    within = torch.linalg.inv(_cholesky(differences.T @ differences / len(differences)))
    whitened = (descriptors - mean) @ within.T
    _, vectors = torch.linalg.eigh(whitened.T @ whitened)
    return mean, vectors.flip(1).T @ within


def matching_pairs(labels: np.ndarray, per_image: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of random pairs of the same class, `per_image` for each image that has a mate.

    Raises:
        DataError: If no image has one.
    """
    generator = numpy_generator(seed, "order", "matching pairs")
    queries, positives = [], []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            continue
        steps = generator.integers(1, len(members), size=(len(members), per_image))
        mates = members[(np.arange(len(members))[:, None] + steps) % len(members)]
        queries.append(np.repeat(members, per_image))
        positives.append(mates.reshape(-1))
    if not queries:
        raise DataError("no two images share a class")
    return torch.from_numpy(np.concatenate(queries)), torch.from_numpy(np.concatenate(positives))


def _centre(descriptors: Tensor) -> tuple[Tensor, Tensor]:
    descriptors = descriptors.double()
    mean = descriptors.mean(dim=0)
    return mean, descriptors - mean


def _cholesky(matrix: Tensor) -> Tensor:
    """The lower factor, of `matrix` plus the smallest power of ten (from 1e-10) on the diagonal that allows it."""
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(matrix)
    added = 1e-10
    while failed and added < 1:
        factor, failed = torch.linalg.cholesky_ex(matrix + added * torch.eye(len(matrix), dtype=matrix.dtype))
        added *= 10
    if failed:
        raise DataError("the differences of matching pairs have no usable covariance")
    return factor
