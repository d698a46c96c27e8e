import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.masks.magnitude import lottery_sparsities, magnitude_masks, random_masks

SHAPES = {"a": (7, 3), "b": (2, 3, 3, 3), "c": (1, 5)}
COUNT = 21 + 54 + 5


def weights(scale: float = 10.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return values | {"b": scale * values["b"]}


def kept(masks: dict[str, torch.Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


@given(st.floats(0, 1))
def test_counts_are_exact(sparsity):
    for masks in (magnitude_masks(weights(), sparsity, "global"), random_masks(weights(), sparsity, "global")):
        assert kept(masks) == COUNT - round(sparsity * COUNT)
    for masks in (magnitude_masks(weights(), sparsity, "layer"), random_masks(weights(), sparsity, "layer")):
        for name, mask in masks.items():
            assert mask.shape == SHAPES[name]
            assert int(mask.sum()) == mask.numel() - round(sparsity * mask.numel())


def test_the_largest_magnitudes_remain():
    values = weights()
    masks = magnitude_masks(values, 0.6)
    smallest_kept = min(values[name][mask].abs().min() for name, mask in masks.items() if mask.any())
    largest_removed = max(values[name][~mask].abs().max() for name, mask in masks.items() if not mask.all())
    assert largest_removed < smallest_kept
    assert masks["b"].float().mean() > 0.5 > masks["a"].float().mean()
    for name, mask in magnitude_masks(values, 0.6, "layer").items():
        assert values[name][~mask].abs().max() < values[name][mask].abs().min()


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_rounds_of_pruning_only_ever_remove(scope):
    masks, removed_before = None, 0
    for level in lottery_sparsities(0.9, 0.3):
        changed = {name: value * torch.rand_like(value) for name, value in weights().items()}
        new = magnitude_masks(changed, level, scope, within=masks)
        if masks is not None:
            assert all(not (new[name] & ~masks[name]).any() for name in new)
        assert COUNT - kept(new) > removed_before
        masks, removed_before = new, COUNT - kept(new)
    assert removed_before == pytest.approx(0.9 * COUNT, abs=len(SHAPES))


def test_a_weight_of_zero_is_kept_before_one_that_was_removed_earlier():
    masks = magnitude_masks(
        {"a": torch.tensor([0.0, 5.0, 1.0])}, 1 / 3, within={"a": torch.tensor([True, False, True])}
    )
    assert masks["a"].tolist() == [True, False, True]


def test_random_masks_follow_the_generator_and_hit_all_places_alike():
    layer = {"w": torch.zeros(20)}
    draws = torch.stack(
        [random_masks(layer, 0.75, generator=torch.Generator().manual_seed(seed))["w"] for seed in range(2000)]
    ).double()
    assert (draws.sum(1) == 5).all()
    assert ((draws.mean(0) - 0.25).abs() < 4.5 * (0.25 * 0.75 / 2000) ** 0.5).all()
    again = random_masks(layer, 0.75, generator=torch.Generator().manual_seed(3))["w"]
    assert torch.equal(again, draws[3].bool())


def test_lottery_levels_remove_a_fifth_of_the_rest_each_time():
    assert lottery_sparsities(0.488) == pytest.approx([0.2, 0.36, 0.488])
    assert lottery_sparsities(0.4) == pytest.approx([0.2, 0.36, 0.4])
    assert lottery_sparsities(0.0) == []


def test_what_is_no_fraction_is_refused():
    for call in (
        lambda: magnitude_masks(weights(), 1.5),
        lambda: random_masks(weights(), -0.1),
        lambda: magnitude_masks(weights(), 0.5, "network"),
        lambda: lottery_sparsities(1.0),
        lambda: lottery_sparsities(0.5, rate=0.0),
    ):
        with pytest.raises(UserError, match="got"):
            call()
