"""ASLP, supermask and edge-popup against the published code: masks, layers, training steps, whole networks."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from published.sparsity import fan_magnitude, parameter_count, sparsity_of
from subnetbench.harness.data.preprocessing import normalise
from subnetbench.harness.training.selection import Selection
from subnetbench.methods.parts.masks.gates import BernoulliGate, GumbelGate, rescale_factor
from subnetbench.methods.parts.masks.masked_model import MaskedModel, mask_network
from subnetbench.methods.parts.masks.masks import AslpMask, EdgePopupMask, FixedMask, Mask, Supermask
from subnetbench.methods.parts.masks.order_statistics import magnitude_thresholds, removal_rank, sorted_rule_mask
from subnetbench.methods.parts.masks.statistics import mask_statistics
from subnetbench.methods.parts.networks.initialisation import kaiming_normal_, signed_constant, signed_constant_
from subnetbench.methods.parts.networks.small import small_network
from subnetbench.methods.parts.views.augmentation import crop_flip

LAYERS = ("conv1", "conv2", "fc1", "fc2", "fc3")
NAMES = tuple(f"{layer}.weight" for layer in LAYERS)


def assert_close(mine: Any, given: Any, tolerance: float = 1e-4) -> None:
    """Largest error relative to the largest given entry."""
    mine = mine.detach().double().numpy() if isinstance(mine, Tensor) else np.asarray(mine, np.float64)
    given = np.asarray(given, np.float64)
    assert mine.shape == given.shape
    error, scale = np.abs(mine - given).max(), np.abs(given).max()
    assert error <= tolerance * scale, f"error {error / scale if scale else error:.2e}"


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))


def leaf(array: np.ndarray) -> Tensor:
    return tensor(array).requires_grad_()


def noise_of(case: Any, key: str) -> Tensor:
    """Two Gumbel planes (keep, drop), or uniform numbers, as the logistic threshold that the score must exceed."""
    values = tensor(case[key])
    return values[1] - values[0] if case["method"].item() == "ASLP" else torch.logit(values)


def mask_of(case: Any) -> Mask:
    method, rescale = case["method"].item(), bool(case.get("weight_rescale", False))
    if method == "ASLP":
        return AslpMask(learn_scale=rescale or "scale" in case, tau=float(case.get("tau", 1.0)))
    if method == "supermask":
        return Supermask(rescale=rescale)
    return EdgePopupMask(float(case["sparsity"])) if method == "edge-popup" else FixedMask()


def small_network_of(case: Any) -> nn.Sequential:
    """The small network of the recorded runs: two convolutions, pooling, three linear layers."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in LAYERS:
        shape = case[f"weight_{layer}"].shape
        module = nn.Conv2d(shape[1], shape[0], 3, padding=1) if len(shape) == 4 else nn.Linear(shape[1], shape[0])
        module.weight.data, module.bias.data = tensor(case[f"weight_{layer}"]), tensor(case[f"bias_{layer}"])
        layers[layer] = module
        if layer != "fc3":
            layers[f"relu_{layer}"] = nn.ReLU()
        if layer == "conv2":
            layers |= {"pool": nn.MaxPool2d(2), "flatten": nn.Flatten()}
    return nn.Sequential(layers)


def set_scores(masked: MaskedModel, values: Callable[[str], np.ndarray]) -> None:
    with torch.no_grad():
        for layer, name in zip(LAYERS, masked.names, strict=True):
            masked.score(name).copy_(tensor(values(layer)))


@pytest.mark.golden("aslp_supermask_edgepopup", "mask_aslp")
def test_aslp_mask(case):
    logits, noise = leaf(case["logits"]), tensor(case["gumbel"][1] - case["gumbel"][0])
    tau, ones = float(case["tau"]), torch.ones(case["logits"].shape)
    mask = GumbelGate.apply(ones, logits, noise, None, tau, bool(case["hard"]))
    (mask * tensor(case["upstream"])).sum().backward()
    np.testing.assert_array_equal(
        GumbelGate.apply(ones, logits, noise, None, tau, True).numpy(force=True), case["keep"]
    )
    assert_close(mask, case["mask_value"])
    assert_close(GumbelGate.apply(ones, logits, noise, None, tau, False), case["soft"])
    assert_close(logits.grad, case["grad_logits"])
    assert_close(AslpMask().keep_probability(logits), case["keep_prob"])


@pytest.mark.golden("aslp_supermask_edgepopup", "mask_supermask")
def test_supermask_mask(case):
    ones, noise = torch.ones(case["scores"].shape), torch.logit(tensor(case["u"]))
    for suffix in ("", "_rescaled"):
        scores = leaf(case["scores"])
        mask = BernoulliGate.apply(ones, scores, noise, bool(suffix))
        (mask * tensor(case["upstream"])).sum().backward()
        np.testing.assert_array_equal(mask.numpy(force=True) > 0, case["keep"])
        assert_close(mask, case["mask_value" + suffix])
        assert_close(scores.grad, case["grad_scores" + suffix])
    assert_close(rescale_factor(tensor(case["keep"])), case["rescale_factor"], 1e-5)
    assert_close(Supermask().keep_probability(scores), case["keep_prob"])


@pytest.mark.golden("aslp_supermask_edgepopup", "mask_edgepopup")
def test_edge_popup_mask(case):
    sparsity = float(case["sparsity"])
    for prefix, rule in (("", "threshold"), ("hn_", "sorted")):
        if f"{prefix}keep" not in case:
            continue
        scores = leaf(case["scores"])
        mask, _ = EdgePopupMask(sparsity, rule=rule).search(0, torch.ones_like(scores), scores, None)
        (mask * tensor(case["upstream"])).sum().backward()
        np.testing.assert_array_equal(mask.numpy(force=True) > 0, case[f"{prefix}keep"])
        assert torch.count_nonzero(mask) == int(case[f"{prefix}n_keep"])
        assert_close(scores.grad, case[f"{prefix}grad_scores"])
    assert_close(magnitude_thresholds(scores, [sparsity])[0], case["threshold"])


@pytest.mark.golden("aslp_supermask_edgepopup", "edgepopup_counts")
def test_edge_popup_counts(case):
    columns = zip(*(case[k].tolist() for k in ("n", "sparsity", "kth_index", "n_keep", "hn_n_keep")), strict=True)
    for entries, sparsity, rank, kept, kept_by_sorting in columns:
        scores = torch.arange(1.0, entries + 1)
        assert removal_rank(sparsity, entries) == rank
        assert int(EdgePopupMask(sparsity).keep(scores).sum()) == kept
        assert int(sorted_rule_mask(scores, sparsity).sum()) == kept_by_sorting
    np.testing.assert_allclose(1 - case["sparsity"], case["hn_keep_fraction"], rtol=0, atol=1e-12)


@pytest.mark.golden("aslp_supermask_edgepopup", "layer_conv", "layer_linear")
def test_one_layer(case):
    weight, bias, x = case["weight"], case["bias"], leaf(case["x"])
    if case["kind"].item() == "conv":
        layer: nn.Module = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
    else:
        layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = tensor(weight), tensor(bias)
    method, rescale = case["method"].item(), bool(case["weight_rescale"])
    mask = mask_of(case)
    if method == "ASLP":
        mask.learn_scale = rescale
    masked = mask_network(layer, mask, freeze="nothing")
    with torch.no_grad():
        masked.score("weight").copy_(tensor(case["scores"]))
        if method == "ASLP" and rescale:
            masked.mask.scale.fill_(float(case["scale"]))
    if masked.mask.samples:
        masked.set_noise({"weight": noise_of(case, "gumbel" if method == "ASLP" else "u")})
    if "keep" in case:
        keep = masked.effective_weights().weights["weight"] != 0
        np.testing.assert_array_equal(keep.numpy(), case["keep"])
        if method == "supermask":
            assert_close(rescale_factor(keep) if rescale else 1.0, case["rescale_factor"], 1e-5)
    y = masked(x)
    (y * tensor(case["upstream"])).sum().backward()
    assert_close(y, case["y"])
    assert_close(x.grad, case["grad_x"])
    assert_close(layer.bias.grad, case["grad_bias"])
    if "grad_weight" in case:
        assert_close(layer.weight.grad, case["grad_weight"])
    if "grad_scores" in case:
        assert_close(masked.score("weight").grad, case["grad_scores"])
    if "grad_scale" in case:
        assert_close(masked.mask.scale.grad[0], case["grad_scale"], 1e-5)


@pytest.mark.golden("aslp_supermask_edgepopup", "signed_constant")
def test_signed_constant(case):
    if "n_cases" in case:
        for i in range(int(case["n_cases"])):
            before = tensor(case[f"weight_before_{i}"])
            after = signed_constant(before)
            assert_close(after, case[f"weight_after_{i}"])
            assert_close(after.abs().max(), case[f"magnitude_{i}"])
            assert_close(fan_magnitude(before[0].numel()), case[f"theory_std_{i}"])
    elif "target_sparsity" in case:
        pairs = zip(case["in_features"].tolist(), 1 - case["target_sparsity"], strict=True)
        assert_close([fan_magnitude(fan, share) for fan, share in pairs], case["magnitude"])
    else:
        fans = case["in_channels"] * case["kernel"] ** 2
        shares = np.where(case["scale_fan"], 1 - case["prune_rate"], 1.0)
        assert_close([fan_magnitude(f, s) for f, s in zip(fans, shares, strict=True)], case["magnitude"])


@pytest.mark.golden("aslp_supermask_edgepopup", "prune")
def test_pruning_by_threshold(case):
    mask = mask_of(case)
    mask.cut = float(case["threshold"])
    masked = mask_network(small_network_of(case), mask)
    set_scores(masked, lambda layer: case[f"scores_{layer}"])
    gains = case.get("scale", np.ones(len(LAYERS)))
    if "scale" in case:
        with torch.no_grad():
            masked.mask.scale.copy_(tensor(gains))
    total, layers = mask_statistics(masked)
    assert total.pruned_fraction == pytest.approx(float(case["pruned_fraction"]), abs=1e-12)
    assert total.expected_keep == pytest.approx(float(case["expected_keep"]), rel=1e-4)
    plain = masked.finalise()
    counted, counted_by_layer = sparsity_of(plain, NAMES)
    assert counted == pytest.approx(float(case["pruned_fraction"]), abs=1e-12)
    for layer, name in zip(LAYERS, NAMES, strict=True):
        assert layers[name].pruned_fraction == counted_by_layer[name]
        assert counted_by_layer[name] == pytest.approx(float(case[f"pruned_fraction_{layer}"]), abs=1e-12)
        assert layers[name].expected_keep == pytest.approx(float(case[f"expected_keep_{layer}"]), rel=1e-4)
        assert_close(plain.get_parameter(name), case[f"pruned_mask_{layer}"] * case[f"weight_{layer}"])
    assert_close(plain(tensor(case["x"])), case["logits"])


@pytest.mark.golden("aslp_supermask_edgepopup", "train")
def test_training_steps(case):
    method, rescale = case["method"].item(), bool(case["weight_rescale"])
    learned = method != "standard-with-mask"
    masked = mask_network(small_network_of(case), mask_of(case))
    momentum = float(case["momentum"])
    sgd = {"lr": float(case["lr"]), "momentum": momentum, "weight_decay": float(case["weight_decay"])}
    if learned:
        set_scores(masked, lambda layer: case[f"scores0_{layer}"])
        optimizers = [torch.optim.SGD(masked.score_parameters(), **sgd)]
        if method == "ASLP" and rescale:
            scale_lr = float(case["sp_lr"])
            optimizers.append(torch.optim.SGD([masked.mask.scale], lr=scale_lr, momentum=momentum))
    else:
        optimizers = [torch.optim.SGD(masked.base.parameters(), **sgd)]
    x, y = tensor(case["x"]), tensor(case["y"])
    losses, updated = [], []
    for step in range(int(case["steps"])):
        for which, optimizer in enumerate(optimizers):
            if masked.mask.samples:
                noise = {
                    n: noise_of(case, f"noise{len(losses)}_{layer}") for layer, n in zip(LAYERS, NAMES, strict=True)
                }
                masked.set_noise(noise)
            masked.zero_grad()
            loss = F.cross_entropy(masked(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            updated.append(which if len(optimizers) > 1 else -1)
        if learned:
            for layer, name in zip(LAYERS, NAMES, strict=True):
                assert_close(masked.score(name), case[f"scores{step + 1}_{layer}"])
        if method == "ASLP" and rescale:
            assert_close(masked.mask.scale, case["scale"][step], 1e-5)
    assert_close(losses, case["loss"])
    assert updated == case["optimizer_index"].tolist()

    if method == "supermask":
        masked.mask.rescale = False  # the recorded network was pruned without its factor
    plain = masked.finalise()
    logits = plain(x)
    assert_close(logits, case["pruned_logits" if "pruned_logits" in case else "final_logits"])
    for layer, name in zip(LAYERS, NAMES, strict=True):
        if f"pruned_mask_{layer}" in case:
            assert_close(plain.get_parameter(name), case[f"pruned_mask_{layer}"] * case[f"weight_{layer}"])
        if not learned:
            assert_close(plain.get_parameter(name), case[f"weight_final_{layer}"])
            assert_close(plain.get_parameter(f"{layer}.bias"), case[f"bias_final_{layer}"])


@pytest.mark.golden("aslp_supermask_edgepopup", "mc_eval_supermask")
def test_accuracy_over_sampled_masks(case):
    masked = mask_network(small_network_of(case), Supermask(rescale=bool(case["weight_rescale"])))
    set_scores(masked, lambda layer: case[f"scores_{layer}"])
    count = sum(1 for name in case if name[0] == "x" and name[1:].isdigit())
    batches = [(tensor(case[f"x{b}"]), tensor(case[f"y{b}"])) for b in range(count)]
    images = sum(len(y) for _, y in batches)
    accuracies, losses = [], []
    for draw in range(int(case["draws"])):
        correct = loss = 0.0
        for b, (x, y) in enumerate(batches):
            uniforms = case.under(f"u_draw{draw}_batch{b}_")
            masked.set_noise({f"{layer}.weight": torch.logit(tensor(u)) for layer, u in uniforms.items()})
            with torch.no_grad():
                logits = masked(x)
            correct += (logits.argmax(1) == y).sum().item()
            loss += F.cross_entropy(logits, y, reduction="sum").item()
        accuracies.append(correct / images)
        losses.append(loss / images)
    assert accuracies == case["test_acc"].tolist()
    assert_close(losses, case["test_loss"])
    assert_close(np.mean(accuracies), case["mean_test_acc"])


def hashed(entries: int, stream: int) -> np.ndarray:
    """The formula numbers of the full-size networks: 32-bit integers."""
    v = np.arange(1, entries + 1, dtype=np.uint32) * np.uint32(2654435761)
    v = v + np.uint32(stream * 2246822519 % 2**32)
    v ^= v >> np.uint32(16)
    v *= np.uint32(0x7FEB352D)
    v ^= v >> np.uint32(15)
    v *= np.uint32(0x846CA68B)
    return v ^ (v >> np.uint32(16))


def uniform(entries: int, stream: int) -> np.ndarray:
    return (hashed(entries, stream) + 0.5) / 2**32


@pytest.mark.golden("aslp_supermask_edgepopup", "fullnet")
@pytest.mark.parametrize("network", ["Conv2", "Conv4", "Conv6"])
@pytest.mark.parametrize("method", ["ASLP", "edge-popup", "supermask"])
def test_full_size_network(case, network, method):
    if not (expected := case.under(f"{network}_{method}_")):
        pytest.skip("this case does not hold the network")
    seed = int(case["seed"])
    masks = {"ASLP": AslpMask(learn_scale=True), "edge-popup": EdgePopupMask(0.5), "supermask": Supermask(rescale=True)}
    masked = mask_network(small_network(network.lower()), masks[method])
    noise = {}
    with torch.no_grad():
        for layer, name in enumerate(masked.names):
            stream, weight, score = 1000 * seed + 10 * layer, masked.weight(name), masked.score(name)
            entries, fan_in, shape = weight.numel(), weight[0].numel(), weight.shape
            bias = masked.base.get_parameter(name.replace("weight", "bias"))
            weight.copy_(tensor((2 * uniform(entries, stream) - 1) * np.sqrt(6 / fan_in)).view(shape))
            bias.copy_(tensor((2 * uniform(bias.numel(), stream + 1) - 1) / np.sqrt(fan_in)))
            if method == "ASLP":
                score.copy_(tensor(4 * (uniform(entries, stream + 2) - 0.4)).view(shape))
                masked.mask.scale[layer] = 1 + 0.05 * layer
            elif method == "edge-popup":
                magnitude = (7919 * np.arange(entries, dtype=np.int64) % entries + 0.5) / entries
                sign = 1.0 - 2.0 * (hashed(entries, stream + 3) & 1)
                score.copy_(tensor(magnitude * sign).view(shape))
            else:
                score.fill_(0.1 * (layer - 2))
                u16 = ((hashed(entries, stream + 4) >> 16) + 0.5) / 65536
                noise[name] = torch.logit(tensor(u16)).float().view(shape)
    if noise:
        masked.set_noise(noise)
    x = tensor(2 * uniform(2 * 3 * 32 * 32, 1000 * seed + 999) - 1).float().view(2, 3, 32, 32)
    masked.mode = "final" if method == "ASLP" else "search"
    logits = masked(x)
    assert_close(logits, expected["logits"])
    kept = [int(torch.count_nonzero(w)) for w in masked.effective_weights().weights.values()]
    assert kept == expected["n_keep"].tolist()
    if "loss" in expected:
        loss = F.cross_entropy(logits, torch.tensor([3, 7]))
        loss.backward()
        gradients = [masked.score(name).grad.flatten() for name in masked.names]
        assert_close(loss, expected["loss"])
        assert_close([g.double().norm() for g in gradients], expected["grad_norm"], 1e-3)
        probes = [g[((torch.arange(8) + 0.5) * g.numel() / 8).long()] for g in gradients]
        assert_close(torch.stack(probes), expected["grad_probe"], 1e-3)


@pytest.mark.golden("aslp_supermask_edgepopup", "data_transform")
def test_augmentation_and_normalisation(case):
    images = tensor(case["images"]).permute(0, 3, 1, 2)
    mean, std = case["mean"].tolist(), case["std"].tolist()
    augmented = crop_flip(images, tensor(case["crop_top_left"]), tensor(case["flip"]), padding=4)
    assert_close(normalise(augmented, mean, std), case["train_out"])
    assert_close(normalise(images[:1], mean, std)[0], case["test_out_first"])
    assert_close(normalise(images[:1], [0.0] * 3, [1.0] * 3)[0], case["no_augment_out_first"])


@pytest.mark.golden("aslp_supermask_edgepopup", "selection")
def test_selection_of_the_best_epoch(case):
    selection = Selection(patience=int(case["patience"]))
    for value in case["val_acc"]:
        selection.update(float(value))
        if selection.should_stop:
            break
    assert selection.seen == int(case["epochs_run"])
    assert selection.best_index == int(case["best_epoch"])


@pytest.mark.golden("aslp_supermask_edgepopup", "architecture")
def test_architecture_counts(case):
    for network in ("Conv2", "Conv4", "Conv6"):
        given = case.under(f"{network}_")
        net = small_network(network.lower())
        kaiming_normal_(net, torch.Generator().manual_seed(1))
        layers = [(name, layer) for name, layer in net.named_children() if isinstance(layer, nn.Conv2d | nn.Linear)]
        weights = [layer.weight for _, layer in layers]
        assert [name for name, _ in layers] == given["layers"].tolist()
        assert [[*w.shape, 1, 1][:4] for w in weights] == given["weight_shape"].tolist()
        assert [w.numel() for w in weights] == given["n_weight"].tolist()
        assert [layer.bias.numel() for _, layer in layers] == given["n_bias"].tolist()
        assert [w[0].numel() for w in weights] == given["fan_in"].tolist()
        assert sum(w.numel() for w in weights) == int(given["total_weight"])
        assert parameter_count(net) == int(given["total_weight"]) + int(given["total_bias"])
        for weight, std in zip(weights, given["weight_std"], strict=True):
            assert abs(weight.std().item() / std - 1) < 4 / np.sqrt(2 * weight.numel())
        for (_, layer), bound in zip(layers, given["bias_bound"], strict=True):
            assert 0.5 * bound < layer.bias.abs().max().item() <= bound * (1 + 1e-6)
        popup = mask_network(net, EdgePopupMask(0.5), generator=torch.Generator().manual_seed(2))
        for name, bound in zip(popup.names, given["edgepopup_score_bound"], strict=True):
            assert 0.9 * bound < popup.score(name).abs().max().item() <= bound * (1 + 1e-6)

        for method, rescaled in ((m, r) for m in ("ASLP", "supermask", "edge-popup") for r in ("plain", "wr")):
            recorded = given[f"{method}_{rescaled}_optimised"].tolist()
            masks = {"ASLP": AslpMask(learn_scale=rescaled == "wr"), "supermask": Supermask(rescale=rescaled == "wr")}
            masked = mask_network(small_network(network.lower()), masks.get(method) or EdgePopupMask(0.5))
            groups = [masked.score_parameters(), list(masked.mask.parameters())]
            assert [sum(p.numel() for p in group) for group in groups if group] == recorded
            # The released ASLP networks carry their scales even where nothing uses them.
            unused = len(layers) if method == "ASLP" and rescaled == "plain" else 0
            total = given[f"{method}_{rescaled}_total_parameters"]
            assert parameter_count(masked) + unused == int(total)
            assert sum(p.numel() for p in masked.parameters() if p.requires_grad) == sum(recorded)

    net = signed_constant_(kaiming_normal_(small_network("conv2"), torch.Generator().manual_seed(3)), "conv")
    distinct = [len(net.get_submodule(name).weight.abs().unique()) for name in LAYERS]
    assert distinct[:2] == case["sc_Conv2_distinct_magnitudes_conv"].tolist()
    assert [count == 1 for count in distinct[2:]] == case["sc_Conv2_linear_is_constant"].tolist()
