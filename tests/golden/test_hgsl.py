"""Parity of HGSL's parts with the values of the published implementation."""

from collections import OrderedDict
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from published.losses import unit_embedding
from subnetbench.harness.method.stages import Progress, Stage
from subnetbench.harness.method.step import Batch, LogSums, Step
from subnetbench.methods.hgsl import Hgsl
from subnetbench.methods.parts.losses.hgsl import HardGlobalSoftmin, decorrelation, hard_softmin
from subnetbench.methods.parts.networks.embedding import EmbeddingNetwork
from subnetbench.methods.parts.networks.retrieval import MaxAveragePool, hgsl_resnet50
from subnetbench.methods.parts.optim.clipping import clip_in_place, total_norm

RUNS = [("f32", torch.float32, 1e-5), ("f64", torch.float64, 1e-10)]
PRECISIONS = pytest.mark.parametrize(("run", "dtype", "tolerance"), RUNS, ids=["f32", "f64"])


class OneProcess:
    """Enough of a world for a step."""

    size, rank, device = 1, 0, torch.device("cpu")

    def autocast(self):
        return nullcontext()

    def sum_(self, tensors):
        pass


def assert_close(actual: Tensor, expected: np.ndarray, tolerance: float, what: str = "") -> None:
    """max|yours - given| / max|given| <= tolerance"""
    difference = np.abs(actual.detach().double().numpy() - expected).max()
    assert difference <= tolerance * np.abs(expected).max(), what


def criterion(case, dtype: torch.dtype, k: int = 1) -> HardGlobalSoftmin:
    classes, dim = case["weight_v"].shape
    loss = HardGlobalSoftmin(
        classes,
        dim,
        k=k,
        alpha=float(case["alpha"]),
        centres="ratio",
        margin=float(case["margin"]),
        decorrelation_weight=float(case.get("Lambda", 0.1)),
    )
    with torch.no_grad():
        loss.directions.copy_(torch.from_numpy(case["weight_v"]))
        loss.lengths.copy_(torch.from_numpy(case["weight_g"]))
    return loss.to(dtype)


@PRECISIONS
@pytest.mark.golden("hgsl", "head")
def test_embedding_and_distances(case, run, dtype, tolerance):
    maps = torch.from_numpy(case["feature_map"]).to(dtype)
    loss = criterion(case, dtype)
    embeddings = unit_embedding(MaxAveragePool()(maps))
    found = {
        "unit_features": embeddings,
        "eval_embedding": embeddings,
        "proxies_used": loss.centres(),
        "distance": loss.distances(embeddings),
        "logits": loss.logits(embeddings),
    }
    for name, value in found.items():
        assert_close(value, case[f"{name}_{run}"], tolerance, name)


@PRECISIONS
@pytest.mark.golden("hgsl", "loss")
def test_hard_softmin(case, run, dtype, tolerance):
    labels = torch.from_numpy(case["labels"])
    # The official float32 run overflows for large logits; the right values are then those in double.
    reference = run if np.isfinite(case[f"k1/loss_{run}"]) else "f64"
    for k in case["ks"].tolist():
        logits = torch.from_numpy(case["logits"]).to(dtype).requires_grad_()
        loss = hard_softmin(logits, labels, k)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert_close(loss, case[f"k{k}/loss_{reference}"], tolerance, f"k={k}")
        expected = case[f"k{k}/grad_{reference}"]
        if np.abs(expected).max() < 1e-6:
            # All correct at k = 1: the true gradient is 0, the official one rounding noise.
            assert gradient.abs().max() <= 1e-6
        else:
            assert_close(gradient, expected, tolerance, f"k={k}")


@PRECISIONS
@pytest.mark.golden("hgsl", "decorrelation")
def test_decorrelation(case, run, dtype, tolerance):
    centres = torch.from_numpy(case["W"]).to(dtype).requires_grad_()
    loss = decorrelation(centres)
    assert_close(loss, case[f"loss_{run}"], tolerance)
    assert_close(torch.autograd.grad(loss, centres)[0], case[f"grad_{run}"], tolerance)


@PRECISIONS
@pytest.mark.golden("hgsl", "total")
def test_whole_loss(case, run, dtype, tolerance):
    labels = torch.from_numpy(case["labels"])
    for k in case["ks"].tolist():
        maps = torch.from_numpy(case["feature_map"]).to(dtype).requires_grad_()
        module = criterion(case, dtype, k)
        parts = module(unit_embedding(MaxAveragePool()(maps)), labels)
        inputs = {"feature_map": maps, "weight_v": module.directions, "weight_g": module.lengths, "alpha": module.alpha}
        gradients = dict(zip(inputs, torch.autograd.grad(parts["loss"], list(inputs.values())), strict=True))
        found = {
            "hard": parts["hard_softmin"],
            "decorrelation": parts["decorrelation"],
            "total": parts["loss"],
            "param_grad_norm": total_norm([gradients[name] for name in ("weight_v", "weight_g", "alpha")]),
            **{f"grad_{name}": gradient for name, gradient in gradients.items()},
        }
        for name, value in found.items():
            assert_close(value, case[f"k{k}/{name}_{run}"], tolerance, f"k={k} {name}")


def own_name(published: str) -> str:
    names = {"fc.weight_v": "loss.directions", "fc.weight_g": "loss.lengths", "alpha": "loss.alpha"}
    return names.get(published, published)


@pytest.mark.golden("hgsl", "steps")
def test_training_steps(case):
    channels, classes = int(case["C"]), int(case["K"])
    layers = OrderedDict(c=nn.Conv2d(3, channels, 3, padding=1), b=nn.BatchNorm2d(channels), r=nn.ReLU())
    network = nn.ModuleDict(
        {
            "features": nn.Sequential(layers),
            "loss": HardGlobalSoftmin(
                classes,
                2 * channels,
                k=int(case["k"]),
                centres="ratio",
                margin=float(case["margin"]),
                decorrelation_weight=float(case["Lambda"]),
            ),
        }
    )

    def tensors() -> dict[str, Tensor]:
        return dict(network.state_dict(keep_vars=True))

    with torch.no_grad():
        for name, value in case.under("init/").items():
            target = tensors()[own_name(name)]
            target.copy_(torch.from_numpy(value).reshape(target.shape))
    names = [own_name(name) for name in case["group_names"].tolist()]
    assert set(names) == {name for name, _ in network.named_parameters()}
    optimizer = torch.optim.SGD(
        [
            {"params": [tensors()[name]], "lr": lr, "weight_decay": decay}
            for name, lr, decay in zip(names, case["group_lr"].tolist(), case["group_wd"].tolist(), strict=True)
        ],
        momentum=float(case["momentum"]),
    )

    def embed(images: Tensor) -> Tensor:
        return unit_embedding(MaxAveragePool()(network["features"](images)))

    network.train()
    for step, (images, labels) in enumerate(zip(case["x"], case["y"], strict=True)):
        parts = network["loss"](embed(torch.from_numpy(images)), torch.from_numpy(labels))
        optimizer.zero_grad()
        parts["loss"].backward()
        norm = clip_in_place([p.grad for p in network.parameters() if p.grad is not None], float(case["clip"]))
        optimizer.step()
        found = {
            "loss": parts["loss"],
            "train_acc": 100 * parts["accuracy"],
            "grad_norm_before_clip": norm,
            "alpha_after": network["loss"].alpha,
        }
        for name, value in found.items():
            assert_close(value, case[name][step], 1e-5, name)
        for name, expected in case.under(f"step{step + 1}/").items():
            assert_close(tensors()[own_name(name)].reshape(expected.shape), expected, 1e-5, name)
    network.eval()
    assert_close(embed(torch.from_numpy(case["x"][0])), case["eval_embedding_x0"], 1e-5)


@pytest.mark.golden("hgsl", "steps")
def test_training_steps_of_the_method(case):
    """The same steps, taken by the registered method under `preset: paper`: its groups, its clip, its loss."""
    channels, rates = int(case["C"]), dict(zip(case["group_names"].tolist(), case["group_lr"].tolist(), strict=True))
    decays = set(case["group_wd"].tolist())
    method = Hgsl(
        Hgsl.Config(
            preset="paper",
            lr=rates["fc.weight_v"],
            alpha_lr=rates["alpha"],
            weight_decay=decays.pop(),
            clip_norm=float(case["clip"]),
            k=int(case["k"]),
        )
    )
    assert not decays, "one decay for everything"
    layers = OrderedDict(c=nn.Conv2d(3, channels, 3, padding=1), b=nn.BatchNorm2d(channels), r=nn.ReLU())
    loss = HardGlobalSoftmin(
        int(case["K"]), 2 * channels, k=method.config.k, centres="ratio", decorrelation_weight=float(case["Lambda"])
    )
    network = EmbeddingNetwork(nn.Sequential(layers), MaxAveragePool(), 2 * channels)
    modules = nn.ModuleDict({"network": network, "loss": loss})

    def tensors() -> dict[str, Tensor]:
        return {
            name.replace("network.backbone.", "features."): tensor
            for name, tensor in modules.state_dict(keep_vars=True).items()
        }

    with torch.no_grad():
        for name, value in case.under("init/").items():
            target = tensors()[own_name(name)]
            target.copy_(torch.from_numpy(value).reshape(target.shape))
    optimizers = method.optimizers(modules, Stage("train", 1), None)
    modules.train()
    for number, (images, labels) in enumerate(zip(case["x"], case["y"], strict=True)):
        batch = Batch(np.arange(len(labels)), torch.from_numpy(images), torch.from_numpy(labels))
        logs = LogSums(torch.device("cpu"))
        step = Step(
            micro_batches=[batch],
            global_size=len(batch),
            progress=Progress(number, 3, 0, 1, 3),
            optimizations=optimizers,
            world=OneProcess(),
            seed=0,
            stage="train",
            buffers=[],
            logs=logs,
        )
        method.training_step(modules, step)
        assert logs.means(OneProcess())["loss"] == pytest.approx(float(case["loss"][number]), rel=1e-5)
        for name, expected in case.under(f"step{number + 1}/").items():
            assert_close(tensors()[own_name(name)].reshape(expected.shape), expected, 1e-5, name)


@pytest.mark.golden("hgsl", "backbone")
def test_backbone(case):
    network = hgsl_resnet50()
    parameters = dict(network.named_parameters())
    assert list(parameters) == case["param_names"].tolist()
    assert sum(p.numel() for p in parameters.values()) == int(case["n_backbone_params"])
    modules = dict(network.named_modules())
    with torch.no_grad():
        for i, (name, parameter) in enumerate(parameters.items()):
            entries = np.sin(0.7 * np.arange(1, parameter.numel() + 1) + 1.3 * i)
            if isinstance(modules[name.rpartition(".")[0]], nn.Conv2d):
                entries = np.sqrt(4 / parameter[0].numel()) * entries
            else:
                entries = 0.05 * entries if name.endswith("bias") else 1 + 0.1 * entries
            parameter.copy_(torch.from_numpy(entries).reshape(parameter.shape))
        maps = network.eval()(torch.from_numpy(case["x"]))
    assert list(maps.shape) == case["feature_map_shape"].tolist()
    assert_close(MaxAveragePool()(maps), case["pooled_max_then_avg"], 1e-4)
