import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from subnetbench.harness.core.rng import numpy_generator, sample_uniforms, stream_key, torch_generator


def test_purposes_and_counters_have_streams_of_their_own():
    keys = {
        stream_key(seed, purpose, *counters)
        for seed in (0, 1)
        for purpose in ("init", "order", "masks")
        for counters in ((), (0,), (0, 1), (1, 0), ("train", 1))
    }
    assert len(keys) == 30


def test_a_stream_depends_on_nothing_but_its_name():
    assert numpy_generator(3, "order", 1).random() == numpy_generator(3, "order", 1).random()
    a, b = (torch.rand(4, generator=torch_generator(3, "masks", 2)) for _ in range(2))
    assert torch.equal(a, b)


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2**40), min_size=1, max_size=20), st.integers(1, 6))
def test_numbers_belong_to_samples_not_to_batches(key, samples, draws):
    ids = np.array(samples)
    together = sample_uniforms(key, ids, draws)
    alone = np.concatenate([sample_uniforms(key, ids[i : i + 1], draws) for i in range(len(ids))])
    np.testing.assert_array_equal(together, alone)
    assert together.min() >= 0
    assert together.max() < 1


def test_sample_numbers_are_uniform_and_uncorrelated():
    numbers = sample_uniforms(7, np.arange(20000), 3)
    counts = np.histogram(numbers[:, 0], bins=20, range=(0, 1))[0]
    # Chi-squared with 19 degrees of freedom: beyond 50 once in 10,000 times.
    assert ((counts - 1000) ** 2 / 1000).sum() < 50
    correlations = np.corrcoef(np.column_stack([numbers, np.roll(numbers[:, 0], 1)]).T)
    assert np.abs(correlations - np.eye(4)).max() < 0.03
