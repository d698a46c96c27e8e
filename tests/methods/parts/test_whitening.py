import numpy as np
import pytest
import torch

from subnetbench.harness.core.errors import DataError
from subnetbench.methods.parts.networks.whitening import matching_pairs, pca_whitening, supervised_whitening


@pytest.fixture
def rows() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    return torch.randn(200, 6, generator=generator, dtype=torch.float64) @ mixing + 3


def covariance(rows: torch.Tensor) -> torch.Tensor:
    return torch.cov(rows.T, correction=0)


def test_pca_makes_all_directions_alike(rows):
    mean, projection = pca_whitening(rows)
    torch.testing.assert_close(covariance((rows - mean) @ projection.T), torch.eye(6, dtype=torch.float64))


def test_the_first_rows_are_the_strongest_directions(rows):
    mean, projection = pca_whitening(rows, 2)
    assert projection.shape == (2, 6)
    _, _, directions = torch.linalg.svd(rows - mean, full_matrices=False)
    cosines = (torch.nn.functional.normalize(projection, dim=1) * directions[:2]).sum(dim=1).abs()
    torch.testing.assert_close(cosines, torch.ones(2, dtype=torch.float64))


def test_descriptors_that_vary_in_few_directions(rows):
    rows = torch.cat([rows, torch.zeros(200, 3, dtype=torch.float64)], dim=1)
    mean, projection = pca_whitening(rows, 6)
    torch.testing.assert_close(covariance((rows - mean) @ projection.T), torch.eye(6, dtype=torch.float64))
    with pytest.raises(DataError, match="9 directions"):
        pca_whitening(rows)
    assert pca_whitening(rows, shrinkage=0.1)[1].isfinite().all()


def test_supervision_whitens_the_differences_within_pairs(rows):
    queries, positives = matching_pairs(np.arange(200) // 4, 2, seed=0)
    mean, projection = supervised_whitening(rows, queries, positives)
    differences = (rows[queries] - rows[positives]) @ projection.T
    torch.testing.assert_close(differences.T @ differences / len(queries), torch.eye(6, dtype=torch.float64))
    whitened = (rows - mean) @ projection.T
    scatter = whitened.T @ whitened
    torch.testing.assert_close(scatter, scatter.diag().diag(), atol=1e-8, rtol=1e-8)
    assert (scatter.diag().diff() <= 0).all()


def test_supervision_copes_with_pairs_that_never_differ_in_some_direction(rows):
    rows = torch.cat([rows, torch.arange(200.0).div(4).floor().double().unsqueeze(1)], dim=1)
    _, projection = supervised_whitening(rows, *matching_pairs(np.arange(200) // 4, 2, seed=0))
    assert projection.isfinite().all()


def test_matching_pairs_are_of_one_class_and_two_images():
    labels = np.array([0, 0, 0, 1, 2, 2, 2, 2, 2])
    queries, positives = (rows.numpy() for rows in matching_pairs(labels, 3, seed=1))
    assert (labels[queries] == labels[positives]).all()
    assert (queries != positives).all()
    assert np.bincount(queries, minlength=9).tolist() == [3, 3, 3, 0, 3, 3, 3, 3, 3]
    with pytest.raises(DataError, match="share a class"):
        matching_pairs(np.arange(5), 1, seed=0)
