"""Parity of PrunNet's and SwitchNet's parts with the values of the published implementation."""

import re
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from published.subnetworks import straight_through
from subnetbench.harness.distributed.world import World
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.method.stages import Progress, Stage
from subnetbench.harness.method.step import Batch, LogSums, Step
from subnetbench.methods.parts.capacity.capacity import Capacity
from subnetbench.methods.parts.capacity.gradients import Subnetworks
from subnetbench.methods.parts.capacity.integration import combine_in_place, conflict_aware, row_products
from subnetbench.methods.parts.capacity.scores import ScoreMaps, prunable_parameters
from subnetbench.methods.parts.capacity.slimmable import SlimmableNetwork, truncated
from subnetbench.methods.parts.capacity.slimmable_layers import SlimmableBatchNorm, WidthSwitch, slim_layer
from subnetbench.methods.parts.capacity.widths import integrate_widths, shared_weights
from subnetbench.methods.parts.masks.order_statistics import magnitude_thresholds, nested_masks, removal_rank
from subnetbench.methods.parts.networks.batch_norm import (
    load_running_statistics,
    recalibrate,
    running_momentum,
    running_statistics_kept,
)
from subnetbench.methods.parts.networks.retrieval import ClassifiedEmbedding, ResNet
from subnetbench.methods.parts.optim.clipping import total_norm
from subnetbench.methods.parts.optim.groups import WarmUpFromZero, decay_groups
from subnetbench.methods.parts.optim.schedules import Cosine, MultiStep


def assert_close(actual: Tensor | np.ndarray, expected: np.ndarray, rel: float, what: str = "") -> None:
    """max|a - b| <= rel * max|b| + 1e-6"""
    actual = actual.detach().numpy() if isinstance(actual, Tensor) else np.asarray(actual)
    assert actual.shape == expected.shape, what
    allowed = rel * np.abs(expected).max(initial=0) + 1e-6
    assert np.abs(actual - expected).max(initial=0) <= allowed, what


def cases_in(case) -> Iterator:
    """The numbered sub-cases of a file, each as a dictionary."""
    prefixes = sorted({name.split(".")[0] for name in case if "." in name})
    for prefix in prefixes:
        yield prefix, case.under(f"{prefix}.")


@pytest.mark.golden("prunnet_switchnet", "masks")
def test_masks(case):
    sparsities = case["sparsities"].tolist()
    for prefix, given in cases_in(case):
        scores = torch.from_numpy(given["scores"])
        assert [removal_rank(s, scores.numel()) for s in sparsities] == given["k"].tolist(), prefix
        assert np.array_equal(magnitude_thresholds(scores, sparsities).double().numpy(), given["threshold"]), prefix
        masks = torch.stack(nested_masks(scores, sparsities)).to(torch.uint8)
        assert np.array_equal(masks.numpy(), given["masks"]), prefix


@pytest.mark.golden("prunnet_switchnet", "sublayers")
def test_masked_layers(case):
    sparsities = case["sparsities"].tolist()
    for prefix, given in cases_in(case):
        tensors = {
            kind: (torch.from_numpy(given[kind]), torch.from_numpy(given[score]))
            for kind, score in (("weight", "score"), ("bias", "bscore"))
            if kind in given
        }
        for i, sparsity in enumerate(sparsities):
            expected = {name: given[f"s{i}.{name}"] for name in ("y", "dx")}
            x = torch.from_numpy(given["x"]).requires_grad_()
            masks = {kind: nested_masks(score, [sparsity])[0] for kind, (_, score) in tensors.items()}
            leaves = {kind: (weight * masks[kind]).requires_grad_() for kind, (weight, _) in tensors.items()}
            if "stride_pad_groups" in given:
                stride, padding, groups = given["stride_pad_groups"].tolist()
                y = F.conv2d(x, leaves["weight"], leaves.get("bias"), stride, padding, 1, groups)
            else:
                y = F.linear(x, leaves["weight"], leaves.get("bias"))
            dx, *gradients = torch.autograd.grad(y, [x, *leaves.values()], torch.from_numpy(given["dy"]))
            assert_close(y, expected["y"], 1e-5, prefix)
            assert_close(dx, expected["dx"], 1e-5, prefix)
            for (kind, (weight, score)), gradient in zip(tensors.items(), gradients, strict=True):
                short = "b" if kind == "bias" else ""
                assert np.array_equal(masks[kind].to(torch.uint8).numpy(), given[f"s{i}.{short}mask"]), prefix
                of_weight, of_score = straight_through(gradient, weight, score, masks[kind])
                assert_close(of_weight, given[f"s{i}.d{kind}"], 1e-5, prefix)
                assert_close(of_score, given[f"s{i}.d{short}score_ste"], 1e-5, prefix)
                assert_close(of_score * masks[kind], given[f"s{i}.d{short}score_masked"], 1e-5, prefix)


@pytest.mark.golden("prunnet_switchnet", "gradint")
def test_conflict_aware_integration(case):
    for prefix, given in cases_in(case):
        gradients = list(torch.from_numpy(given["G"]))
        n, by_row = len(gradients), bool(given["per_filter"])
        order = torch.from_numpy(given["perm"]).expand(n, n)
        (plan,) = conflict_aware(
            row_products(gradients),
            order.unsqueeze(0),
            [by_row],
            exponent=float(given["exp"]),
            use_dot=bool(given["use_dot"]),
        )
        assert_close(combine_in_place([g.clone() for g in gradients], plan.coefficients)[0], given["out"], 1e-5, prefix)
        assert_close(plan.weights, given["weights"], 1e-5, prefix)
        rows = torch.stack(gradients).reshape(n, len(plan.steps), -1)
        each = torch.arange(len(plan.steps))
        for i in range(n):
            projected = rows[i] - plan.steps[:, i : i + 1] * rows[plan.partners[:, i], each]
            assert_close(projected.reshape(gradients[0].shape), given["projected"][i], 1e-5, prefix)


def own_name(published: str) -> str:
    """Our name of a parameter or buffer of the published PrunNet."""
    for theirs, ours in (
        ("projection_cls.last_layer", "classifier"),
        ("projector.last_layer", "projector.linear"),
        ("projector.last_bn", "projector.norm"),
    ):
        if published.startswith(theirs):
            return ours + published.removeprefix(theirs)
    name = f"backbone.{published}"
    if name.startswith("backbone.layer"):
        # Basic blocks call their shortcut conv3 and bn3.
        name = name.replace(".conv3.", ".downsample.0.").replace(".bn3.", ".downsample.1.")
    return name


class PrunNet:
    """The tiny PrunNet of the golden cases with its scores."""

    def __init__(self, case) -> None:
        width, dim = int(case["nf"]), int(case["embedding_dim"])
        backbone = ResNet("basic", (1, 1, 1, 1), width=width, stem_pool="none")
        self.network = ClassifiedEmbedding(backbone, backbone.channels, int(case["num_classes"]), dim=dim)
        initial = {name: torch.from_numpy(value) for name, value in case.under("init.").items()}
        scores = {name: value for name, value in initial.items() if name.endswith(("w_m", "b_m"))}
        self.network.load_state_dict({own_name(n): v for n, v in initial.items() if n not in scores})
        found = prunable_parameters(backbone)
        self.weights = {f"backbone.{name}": parameter for name, parameter in found.items()}
        self.scores = ScoreMaps(self.weights)
        self.scores.load_state_dict({self.weight_name(name): value for name, value in scores.items()})

    def weight_name(self, published: str) -> str:
        return own_name(published.replace("w_m", "weight").replace("b_m", "bias"))

    def subnetworks(self, sparsities) -> Subnetworks:
        return Subnetworks(self.weights, self.scores.as_dict(), [Capacity(round(1 - float(s), 12)) for s in sparsities])

    def parameter(self, published: str) -> Tensor:
        if published.endswith(("w_m", "b_m")):
            return self.scores.as_dict()[self.weight_name(published)]
        return {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}[own_name(published)]

    def others(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.network.named_parameters() if name not in self.weights}


@pytest.mark.golden("prunnet_switchnet", "prunnet_step")
def test_outputs_at_every_capacity(case):
    net = PrunNet(case)
    images = torch.from_numpy(case["probe.images"])
    subnetworks = net.subnetworks(case["sparsities"])
    for i in range(len(subnetworks) + 1):
        leaves = subnetworks.leaves(i - 1) if i else {}
        with running_statistics_kept(net.network.train()):
            embeddings, logits = functional_call(net.network, leaves, images)
        assert_close(embeddings, case[f"probe.train.emb{i}"], 1e-4)
        assert_close(logits, case[f"probe.train.logits{i}"], 1e-4)
        embeddings, _ = functional_call(net.network.eval(), leaves, images)
        assert_close(embeddings, case[f"probe.eval.emb{i}"], 1e-4)


@pytest.mark.golden("prunnet_switchnet", "prunnet_step")
def test_training_steps(case):
    net = PrunNet(case)
    net.network.train()
    lr, momentum, decay = case["lr_momentum_wd"].tolist()
    everything = [*net.network.parameters(), *net.scores.parameters()]
    groups = decay_groups(everything, decay, net.network.undecayed())
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum)
    subnetworks = net.subnetworks(case["sparsities"])
    others = net.others()
    steps = 1 + max(int(name.split(".")[0][4:]) for name in case if name.startswith("step"))
    by_tensor = {name: i for i, name in enumerate(case["integrated_param_order"].tolist())}
    for t in range(steps):
        given = case.under(f"step{t}.")
        images, labels = torch.from_numpy(given["images"]), torch.from_numpy(given["labels"])
        losses, norms, gradients = [], [], []
        subnetworks.select()
        for i in range(len(subnetworks)):
            leaves = subnetworks.leaves(i)
            shared = {name: p.detach().requires_grad_() for name, p in others.items()}
            with running_statistics_kept(net.network):
                loss = F.cross_entropy(functional_call(net.network, leaves | shared, images)[1], labels)
            raw = torch.autograd.grad(loss, [*leaves.values(), *shared.values()])
            finished, norm = subnetworks.finish(i, dict(zip(leaves, raw, strict=False)), raw[len(leaves) :])
            gradients.append(finished)
            losses.append(loss.item())
            norms.append(norm.item())
        with running_momentum(net.network, 1 - 0.9**2):
            loss = F.cross_entropy(net.network(images)[1], labels)
        raw = torch.autograd.grad(loss, [*net.weights.values(), *others.values()])
        losses.append(loss.item())
        dense = dict(zip(net.weights, raw, strict=False))

        rows = [by_tensor[published] for published in map(published_name, turns(net))]
        orders = torch.from_numpy(given["perms"])[rows]
        if orders.dim() == 2:
            orders = orders.unsqueeze(1).expand(-1, orders.shape[1], -1)
        determined = determined_filters(subnetworks)
        of_weights, (of_scores,) = subnetworks.combine([dense, *gradients], orders, exponent=float(case["exp"]))
        for name, parameter in net.weights.items():
            parameter.grad = of_weights[name]
        for name, score in net.scores.as_dict().items():
            score.grad = of_scores[name]
        for parameter, gradient in zip(others.values(), raw[len(net.weights) :], strict=True):
            parameter.grad = gradient
        for name, expected in case.under(f"step{t}.grad.").items():
            found = net.parameter(name).grad
            if name == "projector.last_layer.bias":
                # Batch norm follows: the gradient is zero but for rounding.
                assert found.abs().max() <= 3e-6 * net.network.projector.linear.weight.grad.abs().max()
                continue
            rows = determined.get(net.weight_name(name), slice(None))
            assert_close(found[rows], expected[rows], 1e-4, name)
        norms.append(nn.utils.clip_grad_norm_(everything, 100).item())
        optimizer.step()
        assert_close(np.array(losses), given["losses_sub_then_dense"], 1e-4)
        assert_close(np.array(norms), given["grad_norms_sub_then_final"], 2e-3)
        for name, expected in case.under(f"step{t}.after.").items():
            assert_close(net.parameter(name), expected, 1e-3, name)


class OneProcess(World):
    """Enough of a world for a step."""

    def __init__(self) -> None:
        self.size, self.rank, self.device = 1, 0, torch.device("cpu")

    def autocast(self):
        return nullcontext()


class RecordedStep(Step):
    """A step of given images that keeps what the method hands to the optimizer."""

    def __init__(self, optimizations, images: np.ndarray, labels: np.ndarray) -> None:
        batch = Batch(np.arange(len(labels)), torch.from_numpy(images), torch.from_numpy(labels))
        self.sums = LogSums(torch.device("cpu"))
        super().__init__(
            micro_batches=[batch],
            global_size=len(batch),
            progress=Progress(0, 1, 0, 30, 1),
            optimizations=optimizations,
            world=OneProcess(),
            seed=0,
            stage="train",
            buffers=[],
            logs=self.sums,
        )

    def update(self, *names: str) -> None:
        self.gradients_before = {id(p): p.grad.clone() for p in self.parameters() if p.grad is not None}
        super().update(*names)

    @property
    def logged(self) -> dict[str, float]:
        return self.sums.means(self.world)


@pytest.mark.golden("prunnet_switchnet", "prunnet_step")
def test_steps_of_the_registered_method(case, monkeypatch):
    net = PrunNet(case)
    lr, momentum, decay = case["lr_momentum_wd"].tolist()
    cls = get_method("prunnet")
    capacities = [round(1 - float(sparsity), 12) for sparsity in case["sparsities"]]
    options = {"lr": lr, "momentum": momentum, "weight_decay": decay, "exponent": float(case["exp"])}
    method = cls(cls.Config.parse({"preset": "paper", "capacities": capacities, **options}))
    modules = nn.ModuleDict({"network": net.network, "scores": nn.ModuleList([net.scores])}).train()
    stage = Stage("train", 30)
    method.enter_stage(modules, stage, None)
    optimizations = method.optimizers(modules, stage, None)
    by_tensor = {name: i for i, name in enumerate(case["integrated_param_order"].tolist())}
    steps = 1 + max(int(name.split(".")[0][4:]) for name in case if name.startswith("step"))
    for t in range(steps):
        given = case.under(f"step{t}.")
        orders = torch.from_numpy(given["perms"])[[by_tensor[name] for name in map(published_name, turns(net))]]
        if orders.dim() == 2:
            orders = orders.unsqueeze(1).expand(-1, orders.shape[1], -1)
        monkeypatch.setattr(method, "projection_orders", lambda step, orders=orders: orders)
        determined = determined_filters(net.subnetworks(case["sparsities"]))
        step = RecordedStep(optimizations, given["images"], given["labels"])
        method.training_step(modules, step)
        names = [f"capacity_{capacity:g}" for capacity in capacities]
        losses = [*(step.logged[f"loss_{name}"] for name in names), step.logged["loss"]]
        assert_close(np.array(losses), given["losses_sub_then_dense"], 1e-4)
        norms = [step.logged[f"gradient_norm_{name}"] for name in names]
        norms.append(total_norm(list(step.gradients_before.values())).item())
        assert_close(np.array(norms), given["grad_norms_sub_then_final"], 2e-3)
        for name, expected in case.under(f"step{t}.grad.").items():
            if name == "projector.last_layer.bias":
                continue  # zero but for rounding, since batch norm follows
            rows = determined.get(net.weight_name(name), slice(None))
            assert_close(step.gradients_before[id(net.parameter(name))][rows], expected[rows], 1e-4, name)
        for name, expected in case.under(f"step{t}.after.").items():
            assert_close(net.parameter(name), expected, 1e-3, name)


def determined_filters(subnetworks: Subnetworks) -> dict[str, Tensor]:
    """Which filters of each convolution have a gradient that arithmetic determines, at every capacity.

    The loss does not depend on the length of a filter before batch norm. With a single surviving weight nothing but
    that length is left to change: the true gradient is zero, and what is computed, and projected on, is rounding
    noise, different on every processor.
    """
    surviving = [
        {name: mask.flatten(1).sum(dim=1) for name, mask in subnetworks.masks(i).items() if mask.dim() == 4}
        for i in range(len(subnetworks))
    ]
    return {name: torch.stack([counts[name] != 1 for counts in surviving]).all(dim=0) for name in surviving[0]}


def published_name(ours: str) -> str:
    """The inverse of `own_name` for the backbone of basic blocks."""
    name = ours.removeprefix("backbone.")
    return name.replace(".downsample.0.", ".conv3.").replace(".downsample.1.", ".bn3.")


def turns(net: PrunNet) -> Iterator[str]:
    """Weights and scores in the order of `Subnetworks.combine`, scores under their published leaf names."""
    for name in net.weights:
        yield name
        yield name.removesuffix("weight") + "w_m" if name.endswith("weight") else name.removesuffix("bias") + "b_m"


@pytest.mark.golden("prunnet_switchnet", "bnrecal")
def test_batch_norm_recalibration(case):
    net = PrunNet(case.companion("prunnet_step_b.npz"))
    network, sparsities = net.network, case["sparsities"]
    subnetworks = net.subnetworks(sparsities)
    batches = torch.from_numpy(case["batches"])
    for i in range(len(sparsities)):
        leaves = {name: leaf.detach() for name, leaf in subnetworks.leaves(i).items()}
        statistics = recalibrate(
            network,
            batches,
            forward=lambda images, leaves=leaves: functional_call(network, leaves, images),
            momentum=0.1,
        )
        for name, expected in case.under(f"c{i}.").items():
            if "running" in name:
                assert_close(statistics[own_name(name)], expected, 1e-4, name)
        load_running_statistics(network, statistics)
        embeddings, _ = functional_call(network.eval(), leaves, torch.from_numpy(case["test_images"]))
        assert_close(embeddings, case[f"c{i}.emb"], 1e-4)


def slimmed(kind: str, case, widths: list[float]) -> tuple[nn.Module, WidthSwitch]:
    """One width-switchable layer of the golden cases with its weights."""
    switch = WidthSwitch(widths)
    given = {name: torch.from_numpy(value) for name, value in case.under(f"{kind}.").items()}
    sizes = [given[f"w{i}.y"].shape[1 if given[f"w{i}.y"].dim() == 4 else -1] for i in range(len(widths))]
    if kind.startswith("bn"):
        batch_norm = (nn.BatchNorm2d if given["w0.x"].dim() == 4 else nn.BatchNorm1d)(max(sizes))
        layer: nn.Module = SlimmableBatchNorm(batch_norm, sizes, switch)
        for i in range(len(widths)):
            layer.load_state_dict(
                {f"bn.{i}.weight": given[f"weight{i}"], f"bn.{i}.bias": given[f"bias{i}"]}, strict=False
            )
        return layer, switch
    weight = given["weight"]
    if kind == "ln":
        layer = nn.LayerNorm(len(weight))
    elif weight.dim() == 4:
        groups = len(weight) if kind == "conv_dw" else 1
        stride = 2 if kind == "conv" else 1
        layer = nn.Conv2d(weight.shape[1] * groups, len(weight), 3, stride, 1, groups=groups, bias="bias" in given)
    else:
        layer = nn.Linear(weight.shape[1], len(weight), bias="bias" in given)
    layer.load_state_dict({name: given[name] for name in ("weight", "bias") if name in given})
    parts = 3 if kind == "qkv" else 1
    slim_layer(layer, [size // parts for size in sizes], switch, parts=parts)
    return layer, switch


@pytest.mark.golden("prunnet_switchnet", "slimmable")
def test_width_switchable_layers(case):
    widths = case["widths"].tolist()
    listed = next(name for name in case if name.startswith("channel_list_for_"))
    for base, counts in zip(listed.removeprefix("channel_list_for_").split("_"), case[listed].tolist(), strict=True):
        assert [truncated(int(base), width) for width in widths] == counts
    for kind in sorted({name.split(".")[0] for name in case if "." in name}):
        layer, switch = slimmed(kind, case, widths)
        for i in range(len(widths)):
            given = case.under(f"{kind}.w{i}.")
            switch.index = i
            x = torch.from_numpy(given["x"]).requires_grad_()
            y = layer(x)
            y.backward(torch.from_numpy(given["dy"]))
            assert_close(y, given["y"], 1e-5, kind)
            assert_close(x.grad, given["dx"], 1e-4, kind)
            owner = layer.bn[i] if kind.startswith("bn") else layer
            for name in ("weight", "bias"):
                if f"d{name}" in given:
                    assert_close(getattr(owner, name).grad, given[f"d{name}"], 1e-4, kind)
            for name in ("running_mean", "running_var"):
                if name in given:
                    assert_close(getattr(owner, name), given[name], 1e-5, kind)
            layer.zero_grad()


class SwitchNet:
    """The tiny SwitchNet of the golden cases: `widths` are shares of the usual channel counts."""

    def __init__(self, case, *, widest_first: bool = False) -> None:
        widths = case["widths"].tolist()
        full = max(range(len(widths)), key=lambda i: widths[i])
        rest = [i for i in range(len(widths)) if i != full]
        self.order = [full, *rest] if widest_first else list(range(len(widths)))
        self.widths = [widths[i] for i in self.order]
        self.full = self.order.index(full)
        usual = {int(count * widths[full]): count for count in (64, 128, 256, 512)}
        backbone = ResNet("basic", (1, 1, 1, 1), width=int(64 * widths[full]), stem_pool="ceil", last_stride=1)
        network = ClassifiedEmbedding(
            backbone, backbone.channels, int(case["num_classes"]), dim=int(case["embedding_dim"])
        )
        self.network = SlimmableNetwork(
            network,
            self.widths,
            torch.from_numpy(case["images"]),
            channels=lambda count, width: int(usual[count] * width),
            full_outputs=("projector.linear", "projector.norm"),
            unchanged=("classifier",),
        )
        initial = {self.own_name(name): torch.from_numpy(value) for name, value in case.under("init.").items()}
        self.network.load_state_dict(
            {name: initial.get(name, value) for name, value in self.network.state_dict().items()}
        )
        assert initial.keys() <= self.network.state_dict().keys()

    def own_name(self, published: str) -> str:
        name = published if published.startswith("proj") else f"backbone.{published}"
        name = f"network.{own_name(name) if published.startswith('proj') else name}"
        return re.sub(r"\.bn\.(\d+)\.", lambda found: f".bn.{self.order.index(int(found[1]))}.", name)

    def gradients(self, images: Tensor, labels: Tensor, width: int):
        """Embeddings, loss, and gradients by name with None where the width has none."""
        embeddings, logits = self.network(images, width=width)
        loss = F.cross_entropy(logits, labels)
        named = dict(self.network.named_parameters())
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        return embeddings, loss, dict(zip(named, found, strict=True))


@pytest.mark.golden("prunnet_switchnet", "switchnet")
def test_switchnet(case):
    net = SwitchNet(case)
    net.network.train()
    images, labels = torch.from_numpy(case["images"]), torch.from_numpy(case["labels"])
    order = [net.full, *(i for i in range(len(net.widths)) if i != net.full)]
    gradients = []
    for i in order:
        embeddings, loss, found = net.gradients(images, labels, i)
        assert_close(embeddings, case[f"w{i}.emb"], 1e-4)
        assert_close(loss, case[f"w{i}.loss"], 1e-5)
        norm = total_norm([gradient for gradient in found.values() if gradient is not None])
        assert_close(norm, case[f"w{i}.grad_norm"], 1e-4)
        gradients.append(found)
    for name, expected in case.under("joint.").items():
        parts = [part[net.own_name(name)] for part in gradients]
        assert_close(sum(part for part in parts if part is not None), expected, 2e-4, name)

    weights = shared_weights(net.network)
    published = case["integrated_order"].tolist()
    assert {net.own_name(name) for name in published} == weights.keys()
    perms = {net.own_name(name): torch.from_numpy(case[f"perm.{name}"]) for name in published}
    n = len(order)
    orders = torch.stack([perms[name].expand(n, n) for name in weights])
    copies = [{name: None if g is None else g.clone() for name, g in part.items()} for part in gradients]
    integrated = integrate_widths(copies, weights, orders, exponent=0.5)
    for name, expected in case.under("integrated.").items():
        assert_close(integrated[net.own_name(name)], expected, 5e-4, name)

    with torch.no_grad():
        net.network.eval()
        for i in order:
            assert_close(net.network(images, width=i)[0], case[f"w{i}.eval_emb"], 1e-4)


@pytest.mark.golden("prunnet_switchnet", "switchnet")
@pytest.mark.parametrize("training", ["compatible", "joint"])
def test_gradients_of_the_registered_method(case, training, monkeypatch):
    net = SwitchNet(case, widest_first=True)
    cls = get_method("switchnet")
    options = {"preset": "paper", "training": training, "widths": [0.1, 1.0], "exponent": 0.5, "clip_norm": None}
    method = cls(cls.Config.parse(options))
    names = [f"width{i}" for i in range(len(net.widths))]
    monkeypatch.setattr(type(method.config), "named_widths", lambda self: dict.fromkeys(names, 1.0))
    modules = nn.ModuleDict({"network": net.network}).train()
    stage = Stage("train", 30)
    method.enter_stage(modules, stage, None)
    optimizations = method.optimizers(modules, stage, None)
    perms = {net.own_name(name): torch.from_numpy(case[f"perm.{name}"]) for name in case["integrated_order"].tolist()}
    n = len(net.widths)
    orders = torch.stack([perms[name].expand(n, n) for name in shared_weights(net.network)])
    monkeypatch.setattr(method, "projection_orders", lambda step: orders)
    step = RecordedStep(optimizations, case["images"], case["labels"])
    method.training_step(modules, step)
    named = dict(net.network.named_parameters())
    prefix, tolerance = ("integrated.", 5e-4) if training == "compatible" else ("joint.", 2e-4)
    for name, expected in case.under(prefix).items():
        assert_close(step.gradients_before[id(named[net.own_name(name)])], expected, tolerance, name)
    assert step.logged["loss"] == pytest.approx(float(case[f"w{net.order[0]}.loss"]), rel=1e-5)


@pytest.mark.golden("prunnet_switchnet", "optim")
def test_parameter_groups(case):
    net = PrunNet(case.companion("prunnet_step_a.npz"))
    names = case["param_names"].tolist()
    parameters = {id(net.parameter(name)): name for name in names}
    everything = [*net.network.parameters(), *net.scores.parameters()]
    assert {id(p) for p in everything} == parameters.keys()
    decay, lr = case["param_weight_decay"].max().item(), case["param_lr"].max().item()
    optimizer = torch.optim.SGD(decay_groups(everything, decay, net.network.undecayed()), lr=lr)
    found = {
        parameters[id(p)]: (group["weight_decay"], group["lr"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert [found[name] for name in names] == list(
        zip(case["param_weight_decay"].tolist(), case["param_lr"].tolist(), strict=True)
    )


@pytest.mark.golden("prunnet_switchnet", "optim")
def test_learning_rates(case):
    def curve(schedule, peak: float, epochs: int, steps_per_epoch: int) -> list[float]:
        return [
            peak
            * schedule.factor(
                Progress(step, epochs * steps_per_epoch, step // steps_per_epoch, epochs, steps_per_epoch)
            )
            for step in range(epochs * steps_per_epoch)
        ]

    checked = 0
    for name, expected in case.items():
        steps = re.fullmatch(r"multistep_((?:\d+_?)+)", name)
        warm = re.fullmatch(r"warmup_(cosine|multistep)_(\d+)ep(?:_of_(\d+))?_(\d+)it", name)
        if steps:
            milestones = tuple(map(int, steps[1].split("_")))
            found = curve(MultiStep(milestones), expected[0], len(expected), 1)
        elif warm:
            kind, rise, _, each = warm.groups()
            after = Cosine(warmup_epochs=float(rise)) if kind == "cosine" else MultiStep((5, 10, 20))
            epochs = len(expected) // int(each)
            found = curve(WarmUpFromZero(float(rise), after), expected.max(), epochs, int(each))
        else:
            continue
        checked += 1
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-18)
    assert checked
