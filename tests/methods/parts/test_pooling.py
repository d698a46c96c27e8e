import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.networks.pooling import POOLINGS, GeneralisedMeanPool, l2_normalise, make_pool


@pytest.mark.parametrize("name", POOLINGS)
def test_every_pooling_gives_one_vector_an_image(name):
    pooled = make_pool(name, 4)(torch.rand(3, 4, 1, 1))
    assert pooled.shape == (3, 4)


@given(seed=st.integers(0, 1000), p=st.floats(1.0, 20.0))
def test_the_generalised_mean_lies_between_mean_and_maximum(seed, p):
    maps = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    pooled = GeneralisedMeanPool(p=p).double()(maps)
    assert (pooled >= maps.mean(dim=(2, 3)) - 1e-6).all()
    assert (pooled <= maps.amax(dim=(2, 3)) + 1e-6).all()


def test_equal_exponents_pool_alike_shared_or_per_channel():
    maps = torch.randn(2, 3, 5, 4)
    assert torch.equal(make_pool("gem", 3)(maps), make_pool("gemmp", 3)(maps))


def test_pooling_does_not_depend_on_where_things_are():
    maps = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    moved = maps.flatten(2)[:, :, torch.randperm(16)].unflatten(2, (4, 4))
    for name in ("gem", "mac", "spoc"):
        pool = make_pool(name, 3).double()
        torch.testing.assert_close(pool(maps), pool(moved))


def test_dead_maps_have_finite_gradients():
    maps = torch.zeros(1, 2, 3, 3, requires_grad=True)
    pool = make_pool("gemmp", 2)
    l2_normalise(pool(maps)).sum().backward()
    assert maps.grad.isfinite().all()
    assert pool.p.grad.isfinite().all()


def test_half_precision_maps_are_pooled_in_single_precision():
    maps = torch.full((1, 1, 2, 2), 60.0, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = make_pool("gem", 1)(maps)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, torch.full((1, 1), 60.0))


def test_the_epsilon_is_added_to_the_norm():
    vectors = torch.tensor([[3e-6, 4e-6], [0.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([5 / 6, 0.0], dtype=torch.float64)
    torch.testing.assert_close(l2_normalise(vectors).norm(dim=1), expected)


def test_unknown_pooling():
    with pytest.raises(UserError, match="gemmp"):
        make_pool("gemp", 3)
