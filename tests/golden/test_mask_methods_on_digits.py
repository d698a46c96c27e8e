"""ASLP, supermask and edge-popup trained to the end: a statistical comparison with recorded runs."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnetbench.harness.training.selection import Selection
from subnetbench.methods.parts.masks.masked_model import MaskedModel, mask_network
from subnetbench.methods.parts.masks.masks import AslpMask, EdgePopupMask, Mask, Supermask
from subnetbench.methods.parts.masks.statistics import mask_statistics
from subnetbench.methods.parts.networks.initialisation import kaiming_normal_, signed_constant_
from subnetbench.methods.parts.networks.small import ConvNet

BATCH = 64


@pytest.fixture(scope="module")
def digits() -> dict[str, tuple[Tensor, Tensor]]:
    """8x8 digits in three equal channels: index mod 5 = 4 is test, index mod 10 = 3 validation, the rest training."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(data.images).float().div(16)[:, None].expand(-1, 3, -1, -1).contiguous()
    labels, index = torch.from_numpy(data.target), torch.arange(len(data.target))
    parts = {"test": index % 5 == 4, "validation": index % 10 == 3}
    parts["train"] = ~(parts["test"] | parts["validation"])
    return {name: (images[rows], labels[rows]) for name, rows in parts.items()}


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of right answers; sampled masks are drawn anew for every batch."""
    with torch.no_grad():
        right = [
            (network(x).argmax(1) == y).sum().item()
            for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True)
        ]
    return sum(right) / len(labels)


def train_on_digits(mask: Mask, lr: float, signed: bool, seed: int, data: Any) -> tuple[MaskedModel, float]:
    """30 epochs of SGD on the scores, then back to the epoch of the best validation accuracy."""
    torch.manual_seed(seed)
    network = kaiming_normal_(ConvNet((16,), hidden=(64, 64), size=8))
    masked = mask_network(signed_constant_(network, "conv") if signed else network, mask)
    optimizers = [torch.optim.SGD(masked.score_parameters(), lr=lr, momentum=0.9)]
    if isinstance(mask, AslpMask) and mask.learn_scale:
        optimizers.append(torch.optim.SGD([masked.mask.scale], lr=1e-3, momentum=0.9))
    images, labels = data["train"]
    selection, best = Selection(), {}
    for _ in range(30):
        for rows in torch.randperm(len(labels)).split(BATCH):
            for optimizer in optimizers:
                masked.zero_grad()
                F.cross_entropy(masked(images[rows]), labels[rows]).backward()
                optimizer.step()
        if selection.update(accuracy(masked, *data["validation"])):
            best = {name: value.clone() for name, value in masked.state_dict().items()}
    masked.load_state_dict(best)
    assert selection.best_value is not None
    return masked, selection.best_value


@pytest.mark.slow
@pytest.mark.golden("aslp_supermask_edgepopup", "behaviour_digits")
@pytest.mark.parametrize(
    ("method", "rescale", "signed", "lr"),
    [
        ("ASLP", False, False, 50.0),
        ("ASLP", True, True, 50.0),
        ("supermask", False, True, 50.0),
        ("edge-popup", False, False, 0.1),
    ],
)
def test_trained_networks_fall_into_the_recorded_band(case, digits, method, rescale, signed, lr):
    """Means over seeds within three standard errors of the recorded means.

    The spread is the recorded one, but at least that of counting right answers (or kept weights) at random,
    and 3 % for learned scales.
    """
    columns = {"method": method, "weight_rescale": rescale, "signed_constant": signed, "lr": lr}
    rows = np.all([case[column] == value for column, value in columns.items()], axis=0)
    if not rows.any():
        pytest.skip("this case does not hold the configuration")
    mine: dict[str, list[float]] = {}
    for seed in (1, 2):
        masks = {"ASLP": AslpMask(learn_scale=rescale), "supermask": Supermask(rescale=rescale)}
        masked, best_validation = train_on_digits(masks.get(method) or EdgePopupMask(0.5), lr, signed, seed, digits)
        found = {"best_val_acc": best_validation}
        found["test_acc_mean10"] = np.mean([accuracy(masked, *digits["test"]) for _ in range(10)])
        if masked.mask.samples:
            statistics, _ = mask_statistics(masked)
            found["test_acc_thresholded"] = accuracy(masked.finalise(), *digits["test"])
            found["expected_keep"] = statistics.expected_keep
            found["pruned_fraction"] = statistics.pruned_fraction
        if rescale:
            found["scale_mean"] = masked.mask.scale.mean().item()
        for name, value in found.items():
            mine.setdefault(name, []).append(value)
    for name, values in mine.items():
        recorded = case[name][rows]
        mean = recorded.mean()
        counted = {
            "best_val_acc": len(digits["validation"][1]),
            "expected_keep": masked.entries,
            "pruned_fraction": masked.entries,
        }
        floor = (
            (0.03 * mean) ** 2
            if name == "scale_mean"
            else mean * (1 - mean) / counted.get(name, len(digits["test"][1]))
        )
        variance = max(recorded.var(ddof=1) if len(recorded) > 1 else 0.0, floor)
        error = np.sqrt(variance * (1 / len(recorded) + 1 / len(values)))
        assert abs(np.mean(values) - mean) < 3 * error, (name, values, recorded)
