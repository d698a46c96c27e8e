"""Classification accuracy and loss from logits that arrive in batches."""

from collections.abc import Iterable

import numpy as np
import torch
from torch.nn import functional

from subnetbench.harness.core.errors import DataError, RunFailure


def classification_metrics(batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """The metrics of `classification_outcomes`, without the outcomes."""
    return classification_outcomes(batches)[0]


def classification_outcomes(
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """`top1`, `loss` and, with more than 5 classes, `top5`, over all samples of all batches.

    A batch is logits (b, classes) and integer labels (b,). A label is among the k best when fewer than k classes
    have a larger logit, or an equal one and a lower index. `loss` is the mean cross-entropy in nats, computed in
    float32 and summed in float64. The second dictionary has whether each sample is right, bool (n,), by `top1` and
    `top5`. Raises `RunFailure` (reason `nan`) for logits that are NaN, `DataError` when
    there are no samples or a label is not a class.
    """
    samples, classes, loss = 0, 0, 0.0
    within: dict[int, list[np.ndarray]] = {1: [], 5: []}
    for logits, labels in batches:
        logits, labels = logits.float(), labels.to(logits.device).long()
        classes = logits.shape[1]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise DataError(f"labels {int(labels.min())}..{int(labels.max())} do not fit {classes} logits")
        if logits.isnan().any():
            raise RunFailure("logits are not numbers", reason="nan")
        own = logits.gather(1, labels[:, None])
        lower = torch.arange(classes, device=logits.device) < labels[:, None]
        rank = ((logits > own) | ((logits == own) & lower)).sum(1)
        for k in within:
            within[k].append((rank < k).cpu().numpy())
        loss += float(functional.cross_entropy(logits, labels, reduction="none").double().sum())
        samples += len(labels)
    if not samples:
        raise DataError("there are no samples to classify")
    right = {f"top{k}": np.concatenate(found) for k, found in within.items() if k == 1 or classes > 5}
    shares = {name: int(found.sum()) / samples for name, found in right.items()}
    return {**shares, "loss": loss / samples}, right
