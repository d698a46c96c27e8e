import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.masks.gates import (
    BernoulliGate,
    BinaryGate,
    FixedGate,
    GumbelGate,
    SoftGate,
    StraightThroughGate,
)
from subnetbench.methods.parts.masks.masked_model import mask_network
from subnetbench.methods.parts.masks.masks import (
    AslpMask,
    BinaryMask,
    ContinuousMask,
    EdgePopupMask,
    Supermask,
    between_rounds_,
    temperature_at,
)
from subnetbench.methods.parts.networks.small import CifarResNet


def double(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_soft_gates_have_the_gradients_of_what_they_compute():
    weight, score = double(3, 4), double(3, 4)
    noise, scale = torch.randn(3, 4, dtype=torch.float64), torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda w, s, c: GumbelGate.apply(w, s, noise, c, 1.0, False), (weight, score, scale))
    torch.autograd.gradcheck(lambda w, s: GumbelGate.apply(w, s, noise, None, 0.7, False), (weight, score))
    torch.autograd.gradcheck(lambda w, s: SoftGate.apply(w, s, 1.7, 2.0), (weight, score))
    torch.autograd.gradcheck(lambda w, s: SoftGate.apply(w, s, torch.tensor(1.7), 2.0)[1], (weight, score))
    torch.autograd.gradcheck(lambda w: FixedGate.apply(w, score > 0, 1.9), (weight,))


def assert_same_gradients(mine: Tensor, reference: Tensor, inputs: tuple[Tensor, ...]) -> None:
    upstream = torch.randn_like(mine)
    torch.testing.assert_close(mine, reference)
    for one, other in zip(
        torch.autograd.grad(mine, inputs, upstream), torch.autograd.grad(reference, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(one, other)


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    return hard.detach() + soft - soft.detach()


def test_biprop_uses_one_magnitude_a_layer_and_the_gradient_of_edge_popup():
    """The released formulation: sign(w) times (alpha mask), whose backward pass multiplies with |w| and sign(s)."""
    weight, score, mask = double(6, 5), double(6, 5), BinaryMask(0.7, rule="sorted")
    keep = mask.keep(score)
    assert int(keep.sum()) == 9
    alpha = (weight.detach().abs() * keep).sum() / 9
    reference = weight.sign().detach() * straight_through(alpha * keep, weight.detach().abs() * score.abs())
    mine = BinaryGate.apply(weight, score, mask.gate(score))
    assert_same_gradients(mine, reference, (score,))
    torch.testing.assert_close(mask.search(0, weight, score, None)[0], mine)
    final, _ = mask.final(0, weight, score)
    torch.testing.assert_close(final.abs()[keep], alpha.expand(9))
    torch.testing.assert_close(final, mine)
    assert not BinaryMask(0.0).final(0, torch.zeros(2, 2), torch.zeros(2, 2))[0].any()


@pytest.mark.parametrize("tau", [0.5, 1.0])
def test_hard_aslp_passes_on_the_gradient_of_the_soft_sample(tau):
    weight, score = double(5, 7), double(5, 7)
    scale, noise = torch.tensor(0.8, dtype=torch.float64, requires_grad=True), torch.randn(5, 7, dtype=torch.float64)
    soft = torch.sigmoid((score - noise) / tau)
    reference = weight * scale * straight_through((score >= noise).double(), soft)
    mine = GumbelGate.apply(weight, score, noise, scale, tau, True)
    assert_same_gradients(mine, reference, (weight, score, scale))


@pytest.mark.parametrize("rescale", [False, True])
def test_supermask_passes_on_the_gradient_of_the_probability_and_of_its_factor(rescale):
    weight, score = double(6, 5), double(6, 5)
    noise = torch.randn(6, 5, dtype=torch.float64)
    mask = straight_through((score > noise).double(), torch.sigmoid(score))
    factor = mask.numel() / mask.sum() if rescale else 1.0
    mine = BernoulliGate.apply(weight, score, noise, rescale)
    upstream_equal = weight * mask * factor
    torch.testing.assert_close(mine, upstream_equal, rtol=1e-6, atol=1e-6)  # the factor is kept in float32
    upstream = torch.randn_like(mine)
    for one, other in zip(
        torch.autograd.grad(mine, (weight, score), upstream),
        torch.autograd.grad(upstream_equal, (weight, score), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_an_empty_supermask_gives_zeros_instead_of_nan():
    weight, score = torch.ones(4), torch.full((4,), -3.0, requires_grad=True)
    effective = BernoulliGate.apply(weight, score, torch.zeros(4), True)
    effective.sum().backward()
    assert not effective.any()
    assert torch.isfinite(score.grad).all()


def test_edge_popup_moves_closed_scores_too_and_keeps_the_sign_of_zero():
    weight, score = double(8), torch.tensor([0.0, -2, 3, -0.1, 0.5, 1, -4, 0.2], dtype=torch.float64).requires_grad_()
    gate = EdgePopupMask(0.5).keep(score).double()
    effective = StraightThroughGate.apply(weight, score, gate)
    upstream = torch.randn(8, dtype=torch.float64)
    grad_weight, grad_score = torch.autograd.grad(effective, (weight, score), upstream)
    torch.testing.assert_close(grad_weight, upstream * gate)
    torch.testing.assert_close(grad_score, upstream * weight.detach() * score.detach().sign())
    assert grad_score[0] == 0
    assert grad_score[3] != 0


@pytest.mark.parametrize("mask", [AslpMask(), Supermask()])
def test_sampled_gates_are_open_with_the_probability_of_the_score(mask):
    score = torch.linspace(-3, 3, 7).repeat(20_000, 1)
    noise = torch.rand(score.shape, generator=torch.Generator().manual_seed(1)).logit()
    effective, _ = mask.search(0, torch.ones_like(score), score, noise)
    probability = mask.keep_probability(score[0])
    spread = (probability * (1 - probability) / len(score)).sqrt()
    assert ((effective.mean(0) - probability).abs() < 4 * spread).all()


def test_extreme_noise_and_scores_stay_finite():
    score = torch.tensor([-200.0, -90, 0, 90, 200], requires_grad=True)
    for mask in (AslpMask(tau=0.1), Supermask(rescale=True)):
        for uniform in (0.0, 1 - 2**-24):
            noise = torch.full((5,), uniform).logit()
            (gradient,) = torch.autograd.grad(mask.search(0, torch.ones(5), score, noise)[0].sum(), score)
            assert torch.isfinite(gradient).all()


def test_continuous_sparsification_starts_as_the_plain_network():
    network, x = CifarResNet(blocks=1, width=4).eval(), torch.randn(2, 3, 16, 16)
    expected = network(x)
    masked = mask_network(network, ContinuousMask(-0.3), CifarResNet.MASKED)
    torch.testing.assert_close(masked(x), expected)
    total = masked.effective_weights().gate_sum
    assert total.item() == pytest.approx(masked.entries, rel=1e-5)
    assert set(masked.names) == {n for n, p in network.named_parameters() if p.ndim == 4 and p.shape[-1] == 3}


def test_a_continuous_ticket_is_the_open_gates_times_their_ceiling_and_leaves_scores_alone():
    masked = mask_network(CifarResNet(blocks=1, width=4), ContinuousMask(0.2), CifarResNet.MASKED)
    for score in masked.score_parameters():
        score.data.normal_()
    masked.mode = "final"
    weights, gate_sum = masked.effective_weights()
    sum(weight.sum() for weight in weights.values()).backward()
    ceiling, open_gates = 1 + math.exp(-0.2), 0
    for name in masked.names:
        keep = masked.score(name) > 0
        open_gates += int(keep.sum())
        torch.testing.assert_close(weights[name], masked.weight(name) * keep * ceiling)
        torch.testing.assert_close(masked.weight(name).grad, keep * ceiling)
        assert masked.score(name).grad is None
    assert gate_sum.item() == pytest.approx(ceiling * open_gates)


def test_temperatures_rise_from_one_to_the_final_one():
    values = [temperature_at(epoch, 6, 200.0) for epoch in range(6)]
    assert values[0] == 1
    assert values[-1] == pytest.approx(200)
    ratios = [b / a for a, b in pairwise(values)]
    assert ratios == pytest.approx([ratios[0]] * 5)
    assert temperature_at(0, 1, 200.0) == 200


def test_scaling_before_clamping_keeps_closed_gates_closed_in_the_next_round():
    score = torch.linspace(-1, 1, 2001)
    compounding = between_rounds_(score.clone(), 0.0, 200.0, "scale_then_clamp")
    released = between_rounds_(score.clone(), 0.0, 200.0, "clamp")
    assert (torch.sigmoid(compounding[score < -0.035]) < 1e-3).all()
    assert (torch.sigmoid(released[(score < 0) & (score > -0.4)]) > 0.4).all()
    assert compounding.max() == released.max() == 0


def test_impossible_settings_are_refused():
    with pytest.raises(UserError, match="tau"):
        AslpMask(tau=0.0)
    for sparsity in (-0.1, 1.1):
        with pytest.raises(UserError, match="sparsity"):
            EdgePopupMask(sparsity)
