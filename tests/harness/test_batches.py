"""Batches of a single sample, which batch normalisation cannot train on."""

from hypothesis import given
from hypothesis import strategies as st

from subnetbench.harness.core.batches import batch_slices


@given(st.integers(0, 400), st.integers(1, 70))
def test_all_samples_once_in_order_and_none_alone(length, size):
    slices = batch_slices(length, size)
    assert [i for part in slices for i in range(length)[part]] == list(range(length))
    sizes = [part.stop - part.start for part in slices]
    assert max(sizes, default=0) <= size
    if size > 2 and length > 1:
        assert min(sizes, default=2) >= 2
    plain = [min(size, length - start) for start in range(0, length, size)]
    if plain and plain[-1] != 1:
        assert sizes == plain
