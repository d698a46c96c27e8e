"""Continuous Sparsification against the published code: masks, layers, schedules, steps, the whole protocol."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from published.sparsity import parameter_count
from subnetbench.methods.parts.masks.gates import FixedGate, SoftGate
from subnetbench.methods.parts.masks.masked_model import MaskedModel, mask_network
from subnetbench.methods.parts.masks.masks import ContinuousMask, between_rounds_, temperature_at
from subnetbench.methods.parts.masks.statistics import mask_statistics
from subnetbench.methods.parts.networks.small import CifarResNet


def assert_close(mine: Any, given: Any, tolerance: float) -> None:
    """Largest error relative to the largest given entry."""
    mine = mine.detach().double().numpy() if isinstance(mine, Tensor) else np.asarray(mine, np.float64)
    given = np.asarray(given, np.float64)
    assert mine.shape == given.shape
    error, scale = np.abs(mine - given).max(), np.abs(given).max()
    assert error <= tolerance * scale, f"error {error / scale if scale else error:.2e}"


def tensor(array: np.ndarray, dtype: torch.dtype | None = None) -> Tensor:
    return torch.from_numpy(np.array(array)).to(dtype)


PRECISIONS = [("f32", torch.float32, 1e-5), ("f64", torch.float64, 1e-8)]


@pytest.mark.golden("continuous_sparsification", "masks")
def test_masks(case):
    for i, initial in enumerate(case["s0"].tolist()):
        mask = ContinuousMask(initial)
        assert_close(mask.ceiling, case["scaling"][i], 1e-12)
        scores = tensor(case["mask_weight"])
        assert_close(mask.final(0, torch.ones_like(scores), scores)[0], case["hard_f32"][i], 1e-5)
        for j, temperature in enumerate(case["temps"].tolist()):
            for precision, dtype, tolerance in PRECISIONS:
                values = scores.to(dtype)
                gates, total = SoftGate.apply(torch.ones_like(values), values, temperature, mask.ceiling)
                assert_close(gates, case[f"soft_{precision}"][i, j], tolerance)
                assert_close(total, case[f"soft_{precision}"][i, j].astype(np.float64).sum(), tolerance)
            mask.temperature.fill_(temperature)
            assert_close(mask.ceiling * mask.keep_probability(scores), case["soft_f32"][i, j], 1e-5)


@pytest.mark.golden("continuous_sparsification", "conv_soft", "conv_ticket")
def test_masked_convolution(case):
    mask = ContinuousMask(float(case["s0"]))
    stride, padding = int(case["stride"]), int(case["padding"])
    for precision, dtype, tolerance in PRECISIONS:
        inputs = {name: tensor(case[name], dtype).requires_grad_() for name in ("x", "weight", "mask_weight")}
        if case["ticket"]:
            effective = FixedGate.apply(inputs["weight"], mask.keep(inputs["mask_weight"]), mask.ceiling)
        else:
            temperature = float(case["temp"])
            effective, _ = SoftGate.apply(inputs["weight"], inputs["mask_weight"], temperature, mask.ceiling)
        y = F.conv2d(inputs["x"], effective, stride=stride, padding=padding)
        (y * tensor(case["grad_y"], dtype)).sum().backward()
        assert_close(y, case[f"y_{precision}"], tolerance)
        assert_close(inputs["x"].grad, case[f"grad_x_{precision}"], tolerance)
        assert_close(inputs["weight"].grad, case[f"grad_weight_{precision}"], tolerance)
        assert (inputs["mask_weight"].grad is not None) == bool(case["mask_weight_has_grad"])
        if case["mask_weight_has_grad"]:
            assert_close(inputs["mask_weight"].grad, case[f"grad_mask_weight_{precision}"], tolerance)


@pytest.mark.golden("continuous_sparsification", "penalty")
def test_penalty_and_densities(case):
    scores = [tensor(case[f"mask_weight_{i}"]) for i in range(int(case["n_layers"]))]
    network = nn.ModuleList(nn.Linear(1, s.numel(), bias=False) for s in scores)
    masked = mask_network(network, ContinuousMask(float(case["s0"])))
    masked.mask.temperature.fill_(float(case["temp"]))
    with torch.no_grad():
        for name, values in zip(masked.names, scores, strict=True):
            masked.score(name).copy_(values.view(-1, 1))
    total = masked.effective_weights().gate_sum
    penalty = float(case["lmbda"]) * total
    penalty.backward()
    assert_close(total, case["entries_sum"], 1e-5)
    assert_close(penalty, case["penalty"], 1e-5)
    for i, name in enumerate(masked.names):
        assert_close(masked.score(name).grad.view(scores[i].shape), case[f"grad_mask_weight_{i}"], 1e-5)
        assert masked.weight(name).grad is None
    statistics, _ = mask_statistics(masked)
    assert 1 - statistics.pruned_fraction == pytest.approx(float(case["remaining_hard"]), abs=1e-12)
    soft = torch.cat([masked.mask.keep_probability(masked.score(name)).flatten() for name in masked.names])
    assert torch.count_nonzero(soft).item() / len(soft) == pytest.approx(float(case["remaining_exact_zero"]), abs=1e-12)


@pytest.mark.golden("continuous_sparsification", "prune")
def test_transition_between_rounds(case):
    for i, initial in enumerate(case["s0"].tolist()):
        for j, temperature in enumerate(case["temps"].tolist()):
            after = between_rounds_(tensor(case["mask_weight"]), initial, temperature, "scale_then_clamp")
            np.testing.assert_array_equal(after.numpy(), case["pruned"][i, j])
            if temperature == 1:
                as_run = between_rounds_(tensor(case["mask_weight"]), initial, 200.0, "clamp")
                np.testing.assert_array_equal(as_run.numpy(), case["pruned"][i, j])


def learning_rate(epoch: int, peak: float, milestones: list[int], drops: list[float]) -> float:
    return peak * float(np.prod([d for m, d in zip(milestones, drops, strict=True) if m <= epoch]))


@pytest.mark.golden("continuous_sparsification", "schedule")
def test_temperature_and_learning_rate_schedules(case):
    for i in range(int(case["n"])):
        given = case.under(f"{i}/")
        epochs, milestones = int(given["epochs"]), given["lr_schedule"].tolist()
        temperatures = [temperature_at(e, epochs, float(given["final_temp"])) for e in range(epochs)]
        np.testing.assert_allclose(temperatures, given["temps"], rtol=1e-12)
        drops = [0.1] * len(milestones)
        rates = [learning_rate(e, float(given["lr0"]), milestones, drops) for e in range(epochs)]
        np.testing.assert_allclose(rates, given["lrs"], rtol=1e-12)


class TinyNetwork(nn.Module):
    """The network of the recorded steps and protocols: two masked convolutions, a plain shortcut, a classifier."""

    def __init__(self, first: int, second: int, classes: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, first, 3, 1, 1, bias=False)
        self.bn0 = nn.BatchNorm2d(first)
        self.conv1 = nn.Conv2d(first, second, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(second)
        self.down = nn.Conv2d(first, second, 1, 2, bias=False)
        self.classifier = nn.Linear(second, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn0(self.conv0(x)))
        z = F.relu(self.down(y) + self.bn1(self.conv1(y)))
        return self.classifier(z.mean((2, 3)))


def tiny_network(case: Any) -> MaskedModel:
    network = TinyNetwork(int(case["c1"]), int(case["c2"]), int(case["n_classes"]))
    masked = mask_network(network, ContinuousMask(float(case["s0"])), where=["conv0", "conv1"])
    load_recorded(masked, case.under("init/"))
    return masked


def recorded_name(masked: MaskedModel, name: str) -> str:
    """The recorded name of an entry of the state dict: scores are stored beside the weights there."""
    return (
        name.removeprefix("base.")
        .removeprefix("scores.")
        .replace(".weight", ".mask_weight" if name.startswith("scores.") else ".weight")
    )


def load_recorded(masked: MaskedModel, given: dict[str, np.ndarray]) -> None:
    state = masked.state_dict()
    names = {recorded_name(masked, name): name for name in state}
    masked.load_state_dict(state | {names[key]: tensor(value) for key, value in given.items()})


def assert_state(masked: MaskedModel, given: dict[str, np.ndarray], tolerance: float) -> None:
    state = {recorded_name(masked, name): value for name, value in masked.state_dict().items()}
    for key, value in given.items():
        assert_close(state[key], value, tolerance)


def weights_optimizer(masked: MaskedModel, lr: float, decay: float) -> torch.optim.SGD:
    return torch.optim.SGD(masked.base.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=decay)


def scores_optimizer(masked: MaskedModel, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(masked.score_parameters(), lr=lr, momentum=0.9, nesterov=True)


def one_step(
    masked: MaskedModel, x: Tensor, y: Tensor, penalty: float, optimizers: list[torch.optim.SGD]
) -> dict[str, Tensor]:
    masked.zero_grad()
    weights, gate_sum = masked.effective_weights()
    logits = masked.call(weights, x)
    cross_entropy = F.cross_entropy(logits, y)
    loss = cross_entropy + penalty * gate_sum
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    return {"loss": loss, "cross_entropy": cross_entropy, "entries_sum": gate_sum, "train_logits": logits}


def optimizers_of(masked: MaskedModel, case: Any) -> list[torch.optim.SGD]:
    lr = float(case["lr"])
    optimizers = [weights_optimizer(masked, lr, float(case["weight_decay"]))]
    return optimizers if case["ticket"] else [*optimizers, scores_optimizer(masked, lr)]


@pytest.mark.golden("continuous_sparsification", "steps_soft", "steps_ticket")
def test_three_steps(case):
    masked = tiny_network(case)
    masked.mask.temperature.fill_(float(case["temp"]))
    masked.mode = "final" if case["ticket"] else "search"
    optimizers = optimizers_of(masked, case)
    x, y = tensor(case["x"]), tensor(case["y"])
    for step in range(len(case["loss"])):
        values = one_step(masked, x, y, float(case["lmbda"]), optimizers)
        for name, value in values.items():
            assert_close(value, case[name][step], 1e-5)
        if step == 0:
            gradients = {recorded_name(masked, n): p.grad for n, p in masked.named_parameters() if p.grad is not None}
            for name, value in case.under("grad0/").items():
                assert_close(gradients[name], value, 1e-5)
        assert_state(masked, case.under(f"step{step + 1}/"), 1e-5)
    masked.eval()
    assert_close(masked(x), case["eval_logits_after"], 1e-5)


@torch.no_grad()
def percent_right(masked: MaskedModel, x: Tensor, y: Tensor) -> float:
    masked.eval()
    right = 100 * (masked(x).argmax(1) == y).double().mean().item()
    masked.train()
    return right


@pytest.mark.golden("continuous_sparsification", "protocol")
def test_whole_protocol(case):
    """Search rounds, released transition, rewinding to the checkpoint, ticket training."""
    tolerance = 1e-4
    masked = tiny_network(case)
    epochs, rounds, peak = int(case["epochs"]), int(case["rounds"]), float(case["lr"])
    schedule = (peak, case["lr_schedule"].tolist(), case["lr_drops"].tolist())
    batches = [(tensor(case[f"train_x{b}"]), tensor(case[f"train_y{b}"])) for b in range(int(case["n_batches"]))]
    optimizers = [weights_optimizer(masked, peak, float(case["weight_decay"])), scores_optimizer(masked, peak)]
    seen: dict[str, list[float]] = {"temps": [], "lrs": [], "val_acc": [], "test_acc": [], "printed_remaining": []}
    checkpoint: dict[str, Tensor] = {}
    for phase in range(rounds + 1):
        if phase == rounds:
            masked.base.load_state_dict(checkpoint)
            assert_state(masked, case.under("rewound/"), tolerance)
            masked.mode = "final"
            optimizers = [weights_optimizer(masked, peak, float(case["weight_decay"]))]
            _, layers = mask_statistics(masked)
            densities = [1 - layers[name].pruned_fraction for name in masked.names]
            np.testing.assert_allclose(densities, case["ticket_density_per_layer"], rtol=0, atol=1e-7)
        for epoch in range(epochs):
            temperature = temperature_at(epoch, epochs, float(case["final_temp"]))
            masked.mask.temperature.fill_(temperature)
            rate = learning_rate(epoch, *schedule)
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = rate
            if phase == 0 and epoch == int(case["rewind_epoch"]):
                checkpoint = {name: value.clone() for name, value in masked.base.state_dict().items()}
                assert_state(masked, case.under("checkpoint/"), tolerance)
            for x, y in batches:
                one_step(masked, x, y, float(case["lmbda"]), optimizers)
            assert_state(masked, case.under(f"end_epoch{phase * epochs + epoch}/"), tolerance)
            seen["temps"].append(temperature)
            seen["lrs"].append(rate)
            for split in ("val", "test"):
                right = percent_right(masked, tensor(case[f"{split}_x"]), tensor(case[f"{split}_y"]))
                seen[f"{split}_acc"].append(right)
            seen["printed_remaining"].append(open_share(masked))
        if phase < rounds - 1:
            before, after = case.under(f"prune{phase}/before/"), case.under(f"prune{phase}/after/")
            assert_state(masked, before, tolerance)
            for name in masked.names:
                between_rounds_(masked.score(name), float(case["s0"]), temperature, "clamp")
            assert_state(masked, after, tolerance)
    assert_state(masked, case.under("final/"), tolerance)
    np.testing.assert_allclose(seen["temps"], case["temps"], rtol=1e-12)
    np.testing.assert_allclose(seen["lrs"], case["lrs"], rtol=1e-12)
    np.testing.assert_allclose(seen["test_acc"], case["test_acc"], rtol=1e-6)
    # These two are recorded as printed: with one and with four decimals.
    np.testing.assert_allclose(seen["val_acc"], case["val_acc"], rtol=0, atol=0.0501)
    np.testing.assert_allclose(seen["printed_remaining"], case["printed_remaining"], rtol=0, atol=0.000051)


def open_share(masked: MaskedModel) -> float:
    """What the released driver prints as remaining weights: the share of gates that are not exactly 0."""
    if masked.mode == "final":
        return 1 - mask_statistics(masked)[0].pruned_fraction
    gates = torch.cat([masked.mask.keep_probability(masked.score(name)).flatten() for name in masked.names])
    return torch.count_nonzero(gates).item() / len(gates)


def filled(shape: list[int], position: int, amplitude: float) -> Tensor:
    values = np.sin(0.7 * np.arange(1, int(np.prod(shape)) + 1) + 1.3 * position)
    if amplitude < 0:
        return (1 + np.float32(0.1) * tensor(values.astype(np.float32))).view(shape)
    return tensor((amplitude * values).astype(np.float32)).view(shape)


@pytest.mark.golden("continuous_sparsification", "resnet_soft", "resnet_ticket")
def test_cifar_resnet(case):
    tolerance = 1e-4
    network = CifarResNet()
    assert parameter_count(network) == int(case["n_params_without_masks"])
    masked = mask_network(network, ContinuousMask(float(case["s0"])), where=CifarResNet.MASKED)
    assert masked.entries == int(case["n_masked"])
    assert len(masked.names) == int(case["n_mask_layers"])
    assert parameter_count(masked) == int(case["n_params_with_masks"])
    names, shapes = case["param_names"].tolist(), [[d for d in s if d] for s in case["param_shapes"].tolist()]
    load_recorded(
        masked,
        {
            name: filled(shape, position, float(amplitude)).numpy()
            for position, (name, shape, amplitude) in enumerate(zip(names, shapes, case["fill_amplitude"], strict=True))
        },
    )
    masked.mask.temperature.fill_(float(case["temp"]))
    masked.mode = "final" if case["ticket"] else "search"
    optimizers = optimizers_of(masked, case)
    x, y = tensor(case["x"]), tensor(case["y"])

    activations: dict[str, Tensor] = {}

    def record(name: str, values: Tensor) -> None:
        activations.setdefault(name, values.detach())

    for name in ("bn0", "stage1", "stage2", "stage3"):
        network.get_submodule(name).register_forward_hook(lambda layer, given, out, name=name: record(name, out))
    network.classifier.register_forward_pre_hook(lambda layer, given: record("avgpool", given[0]))
    for step in range(len(case["loss"])):
        for name, value in one_step(masked, x, y, float(case["lmbda"]), optimizers).items():
            assert_close(value, case[name][step], tolerance)
        if step == 0:
            parameters = {recorded_name(masked, name): p for name, p in masked.named_parameters()}
            gradients = [parameters[name].grad for name in names]
            norms = [-1.0 if g is None else g.double().norm().item() for g in gradients]
            sums = [0.0 if g is None else g.double().sum().item() for g in gradients]
            assert_close(norms, case["grad0_norm"], tolerance)
            assert_close(sums, np.where(case["grad0_norm"] < 0, 0, case["grad0_sum"]), tolerance)
    pairs = [(activations[name].double().mean().item(), activations[name].double().std()) for name in case["act_names"]]
    assert_close(pairs, case["act_mean_std_step0"], tolerance)
    assert_close([parameters[name].double().norm().item() for name in names], case["param_norm_after"], tolerance)
    heads = [
        F.pad(flat[:8], (0, 8 - len(flat[:8]))) for flat in (parameters[name].detach().flatten() for name in names)
    ]
    assert_close(torch.stack(heads), case["param_head8_after"], tolerance)
    masked.eval()
    assert_close(masked(x), case["eval_logits_after"], tolerance)
