import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from published.mask_sampling import sampled_networks
from published.sparsity import sparsity_of
from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.masks.magnitude import random_masks
from subnetbench.methods.parts.masks.masked_model import EffectiveWeights, MaskedModel, mask_network
from subnetbench.methods.parts.masks.masks import AslpMask, ContinuousMask, EdgePopupMask, FixedMask, Mask, Supermask
from subnetbench.methods.parts.masks.statistics import mask_statistics
from subnetbench.methods.parts.networks.small import ConvNet

MASKS = {
    "aslp": AslpMask,
    "aslp with scale": lambda: AslpMask(learn_scale=True, tau=0.5),
    "aslp soft": lambda: AslpMask(hard=False),
    "supermask": Supermask,
    "supermask rescaled": lambda: Supermask(rescale=True),
    "edge-popup": lambda: EdgePopupMask(0.7),
    "edge-popup sorted": lambda: EdgePopupMask(0.7, rule="sorted"),
    "continuous": lambda: ContinuousMask(0.1),
    "fixed": FixedMask,
}
each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(mask: Mask, **options) -> tuple[MaskedModel, Tensor]:
    """A small masked network whose scores are spread around 0, and a batch for it."""
    torch.manual_seed(0)
    masked = mask_network(ConvNet((4,), hidden=(8,), size=8), mask, **options)
    with torch.no_grad():
        for score in masked.score_parameters():
            score.normal_()
    if isinstance(mask, FixedMask):
        masked.set_masks(random_masks({name: masked.weight(name) for name in masked.names}, 0.5))
    return masked, torch.randn(5, 3, 8, 8)


class TokenNet(nn.Module):
    """Attention, an embedding tied with the output layer, and a norm; attention has its fused inference path."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.output = nn.Linear(8, 11, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.block(self.embedding(tokens)))


NETWORKS = {
    "conv1d": (lambda: nn.Conv1d(3, 4, 3), (2, 3, 9)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 2), (2, 2, 4, 4, 4)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), (2, 4, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3), (2, 3, 5, 5)),
    "bilinear": (lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)), (4, 6)),
    "recurrent": (lambda: nn.LSTM(4, 3), (5, 2, 4)),
    "tokens": (TokenNet, None),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("training", [True, False])
def test_any_layer_type_is_masked_and_folds_into_an_equal_plain_network(network, training):
    torch.manual_seed(1)
    build, shape = NETWORKS[network]
    inputs = torch.randint(11, (2, 6)) if shape is None else torch.randn(shape)
    where = "weight_*" if network == "recurrent" else None
    masked = mask_network(build(), EdgePopupMask(0.75), where, generator=generator(2)).train(training)
    before, plain = copy.deepcopy(masked.state_dict()), masked.finalise()
    assert type(plain) is type(masked.base)
    assert not any("score" in name for name, _ in plain.named_parameters())
    for name in masked.names:
        weight, score = plain.get_parameter(name), masked.score(name)
        assert torch.count_nonzero(weight) == score.numel() - round(0.75 * (score.numel() - 1))
        assert torch.equal(weight, torch.where(masked.mask.keep(score), masked.weight(name), 0.0))
        assert not torch.signbit(weight[weight == 0]).any()
    assert all(torch.equal(value, before[name]) for name, value in masked.state_dict().items())
    first = lambda out: out[0] if isinstance(out, tuple) else out  # noqa: E731
    with torch.no_grad():
        unmasked = first(copy.deepcopy(masked.base)(inputs))
        torch.testing.assert_close(first(copy.deepcopy(masked)(inputs)), first(plain(inputs)))
        assert not torch.allclose(unmasked, first(masked(inputs)), atol=1e-3)


def test_tied_weights_are_masked_in_every_place_and_stay_tied():
    masked = mask_network(TokenNet(), EdgePopupMask(0.5), generator=generator(3))
    tied = [name for name in masked.names if masked.weight(name) is masked.base.embedding.weight]
    assert len(tied) == 1
    plain = masked.finalise()
    assert plain.output.weight is plain.embedding.weight
    tokens = torch.randint(11, (2, 6))
    torch.testing.assert_close(masked(tokens), plain(tokens))


@each_mask
def test_final_mode_equals_the_folded_network_and_zeros_are_counted(mask):
    masked, x = small(mask())
    masked.mode = "final"
    plain = masked.finalise()
    torch.testing.assert_close(masked(x), plain(x))
    statistics, layers = mask_statistics(masked)
    total, by_layer = sparsity_of(plain, masked.names)
    assert statistics.pruned_fraction == pytest.approx(total)
    assert 0.3 < total < 0.8
    assert {name: layer.pruned_fraction for name, layer in layers.items()} == by_layer
    zeros = sum(int((plain.get_parameter(name) == 0).sum()) for name in masked.names)
    assert total == pytest.approx(zeros / masked.entries)


@each_mask
def test_state_round_trips_and_keeps_the_base_networks_own_keys(mask):
    masked, x = small(mask())
    masked.draw(generator(4))
    state = copy.deepcopy(masked.state_dict())
    other = mask_network(ConvNet((4,), hidden=(8,), size=8), mask())
    other.load_state_dict(state)
    other.draw(generator(4))
    assert torch.equal(masked(x), other(x))
    base = {name.removeprefix("base.") for name in state if name.startswith("base.")}
    assert base == set(ConvNet((4,), hidden=(8,), size=8).state_dict())
    assert {name for name in state if name.startswith("scores.")} == {f"scores.{name}" for name in masked.names}
    plain = ConvNet((4,), hidden=(8,), size=8).state_dict()
    masked.base.load_state_dict(plain)
    assert torch.equal(masked.weight("conv1.weight"), plain["conv1.weight"])


@each_mask
def test_a_copy_after_a_step_is_independent(mask):
    masked, x = small(mask())
    masked.draw(generator(5))
    masked(x).square().sum().backward()
    twin = copy.deepcopy(masked)
    assert torch.equal(twin(x), masked(x))
    before = masked(x)
    with torch.no_grad():
        for value in twin.state_dict().values():
            value.zero_()
    twin.draw(generator(6))
    assert torch.equal(masked(x), before)


@pytest.mark.slow
@each_mask
@pytest.mark.skipif(torch.__version__ < TorchVersion("2.13"), reason="compiled from torch 2.13 on, eager before")
def test_compiled_as_one_graph_with_the_same_values_and_gradients(mask):
    torch._dynamo.reset()
    masked, x = small(mask(), freeze="nothing")
    masked.draw(generator(7))
    masked(x).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in masked.named_parameters() if p.grad is not None}
    masked.zero_grad()
    compiled = torch.compile(masked, backend="aot_eager", fullgraph=True)
    compiled(x).square().sum().backward()
    for name, parameter in masked.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected.pop(name))
    assert not expected
    if isinstance(masked.mask, ContinuousMask):
        with torch._dynamo.config.patch(error_on_recompile=True):
            masked.mask.temperature.fill_(17.0)
            torch.testing.assert_close(compiled(x), masked(x))


@each_mask
def test_mixed_precision_keeps_scores_and_their_gradients_in_float32(mask):
    masked, x = small(mask())
    masked.draw(generator(8))
    exact = masked(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = masked(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), exact, rtol=0.05, atol=0.05 * exact.abs().max().item())
    out.float().square().sum().backward()
    for score in masked.score_parameters():
        assert score.dtype == score.grad.dtype == torch.float32

    torch.manual_seed(0)
    half = mask_network(ConvNet((4,), hidden=(8,), size=8).bfloat16(), mask())
    assert all(score.dtype == torch.float32 for score in half.score_parameters())
    half(x.bfloat16()).float().sum().backward()
    assert all(torch.isfinite(score.grad).all() for score in half.score_parameters())
    assert all(p.grad.dtype == torch.bfloat16 for p in half.base.parameters() if p.grad is not None)


@each_mask
def test_nothing_waits_for_the_device(mask):
    """Tensors without data cannot be read, so any copy to the host would fail here."""
    masked, x = small(mask(), freeze="nothing")
    masked, x = masked.to("meta"), x.to("meta")
    masked(x).sum().backward()
    masked.mode = "final"
    assert masked(x).shape == (5, 10)


@pytest.mark.parametrize("freeze", ["all", "masked", "nothing"])
def test_frozen_weights_get_no_gradient(freeze):
    masked, x = small(Supermask(), freeze=freeze)
    masked(x).sum().backward()
    for name, parameter in masked.base.named_parameters():
        trained = freeze == "nothing" or (freeze == "masked" and name not in masked.names)
        assert (parameter.grad is not None) == parameter.requires_grad == trained


def test_methods_that_train_weights_leave_them_trainable_by_default():
    for mask, trainable in ((ContinuousMask(), True), (FixedMask(), True), (FixedMask(freezes=True), False)):
        masked, _ = small(mask)
        assert all(p.requires_grad == trainable for p in masked.base.parameters())


def test_noise_follows_the_generator_and_stays_until_the_next_draw():
    masked, x = small(Supermask())
    masked.draw(generator(9))
    first = masked(x)
    assert torch.equal(first, masked(x))
    masked.draw(generator(10))
    assert not torch.equal(first, masked(x))
    masked.draw(generator(9))
    assert torch.equal(first, masked(x))
    masked.set_noise(None)
    torch.manual_seed(11)
    fresh = masked(x)
    assert not torch.equal(fresh, masked(x))
    torch.manual_seed(11)
    assert torch.equal(fresh, masked(x))


def test_a_network_that_moves_leaves_its_noise_behind():
    masked, x = small(AslpMask())
    masked.draw(generator(9))
    masked = masked.double()
    assert masked(x.double()).dtype == torch.float64
    assert masked.to("meta")(x.to("meta").double()).shape == (5, 10)


def test_one_draw_serves_all_layers_with_independent_noise():
    masked, _ = small(AslpMask())
    for score in masked.score_parameters():
        score.data.zero_()
    masked.draw(generator(12))
    kept = [w != 0 for w in masked.effective_weights().weights.values()]
    share = torch.cat([k.flatten() for k in kept]).double().mean().item()
    assert abs(share - 0.5) < 4 * 0.5 / masked.entries**0.5
    assert not torch.equal(kept[1].flatten()[:80], kept[2].flatten()[:80])


def test_drawing_over_noise_that_a_backward_pass_still_needs_is_an_error():
    masked, x = small(AslpMask())
    masked.draw(generator(13))
    loss = masked(x).sum()
    masked.draw(generator(14))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_held_weights_serve_all_forward_passes_of_a_block():
    masked, x = small(Supermask())
    with masked.held():
        first = masked(x)
        assert torch.equal(first, masked(x))
        with masked.held(
            EffectiveWeights({name: torch.zeros_like(masked.weight(name)) for name in masked.names}, None)
        ):
            assert torch.equal(masked(x)[0], masked(x)[1])
        assert torch.equal(first, masked(x))
    assert not torch.equal(first, masked(x))


def test_the_final_supermask_is_rescaled_by_its_own_count():
    masked, _ = small(Supermask(rescale=True))
    plain = masked.finalise()
    for name in masked.names:
        keep = masked.score(name) >= 0
        expected = masked.weight(name) * keep * (keep.numel() / keep.sum())
        torch.testing.assert_close(plain.get_parameter(name), expected)


def test_thresholding_keeps_scores_of_zero_of_either_sign():
    masked, _ = small(AslpMask(learn_scale=True))
    masked.mask.scale.data.fill_(1.5)
    score = masked.score("conv1.weight")
    with torch.no_grad():
        score.fill_(-1.0).view(-1)[:3] = torch.tensor([0.0, -0.0, -1e-30])
    weight = masked.finalise().get_parameter("conv1.weight").flatten()
    torch.testing.assert_close(weight[:2], 1.5 * masked.weight("conv1.weight").flatten()[:2])
    assert not weight[2:].any()
    _, layers = mask_statistics(masked)
    assert layers["conv1.weight"].undecided == pytest.approx(2 / score.numel())


def test_statistics_of_a_sampled_mask():
    masked, _ = small(Supermask())
    for score in masked.score_parameters():
        score.data.fill_(1.0)
    masked.draw(generator(15))
    total, layers = mask_statistics(masked)
    assert total.entries == sum(layer.entries for layer in layers.values()) == masked.entries
    assert total.pruned_fraction == 0
    assert total.expected_keep == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item())
    assert abs(total.sampled_keep - total.expected_keep) < 4 * 0.5 / masked.entries**0.5
    popup, _ = mask_statistics(small(EdgePopupMask(0.5))[0])
    assert popup.expected_keep is popup.sampled_keep is None


@pytest.mark.parametrize("new_mask", ["pass", "batch"])
def test_sampled_networks_are_repeatable_and_keep_or_change_their_mask(new_mask):
    masked, x = small(Supermask())
    outputs = [
        torch.stack([network(x), network(x)])
        for seeds in ((16, 17), (16, 17))
        for network in sampled_networks(masked, map(generator, seeds), new_mask)
    ]
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])
    assert not torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0][0], outputs[0][1]) == (new_mask == "pass")
    with pytest.raises(UserError, match="new_mask"):
        next(sampled_networks(masked, [generator(0)], "epoch"))


def test_unknown_choice_of_what_to_freeze_is_refused():
    with pytest.raises(UserError, match="freeze"):
        mask_network(nn.Linear(2, 2), Supermask(), freeze="biases")


def test_masks_that_follow_from_scores_cannot_be_set():
    masked, _ = small(EdgePopupMask(0.5))
    with pytest.raises(TypeError):
        masked.set_masks({})


DATA_PARALLEL = """
import sys, torch
from torch import nn
from subnetbench.methods.parts.masks.masked_model import mask_network
from subnetbench.methods.parts.masks.masks import AslpMask

folder, rank = sys.argv[1], int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
torch.manual_seed(0)
masked = mask_network(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), AslpMask(learn_scale=True))
x = torch.randn(4, 6)
masked.draw(torch.Generator().manual_seed(1))
network = nn.parallel.DistributedDataParallel(masked)
network(x[2 * rank : 2 * rank + 2]).square().mean().backward()
together = [p.grad.clone() for p in masked.parameters() if p.requires_grad]
masked.zero_grad()
masked(x).square().mean().backward()
alone = [p.grad for p in masked.parameters() if p.requires_grad]
assert len(alone) == 3
for one, other in zip(together, alone, strict=True):
    torch.testing.assert_close(one, other)
"""


@pytest.mark.slow
def test_data_parallel_gradients_are_those_of_the_whole_batch(tmp_path):
    command = [sys.executable, "-c", DATA_PARALLEL, str(tmp_path)]
    ranks = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True) for rank in range(2)]
    for rank in ranks:
        _, errors = rank.communicate(timeout=120)
        assert rank.returncode == 0, errors
