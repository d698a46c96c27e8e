"""Losses that teach a student network to embed images as a frozen teacher does.

The main one is RAML (Suma and Tolias 2023); `LOSSES` names it and its neighbours from other papers. Each takes the
student's and the teacher's outputs for the same images and returns named scalars whose sum is the loss.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from subnetbench.harness.method import UserError, nearest, unknown
from subnetbench.methods.parts.losses import neighbours
from subnetbench.methods.parts.networks.pooling import EPSILON

Reduction = Literal["mean", "sum"]
Parts = dict[str, Tensor]


def absolute_loss(student: Tensor, teacher: Tensor, reduction: Reduction = "mean") -> Tensor:
    """(1 - cos + 1e-6)^2 between the two embeddings of each view, averaged over the views of an image.

    Both are unit vectors (b, p, d); `reduction` is over the b images.
    """
    gap = 1 - (student * teacher).sum(dim=-1) + EPSILON
    return _reduce(gap.square().mean(dim=1), reduction)


def relational_loss(similarities: Tensor, teacher_similarities: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Squared difference (plus 1e-6) of two similarity matrices (b, p, p), averaged over the pairs of two views.

    The diagonal does not count. `reduction` is over the b images.
    """
    views = similarities.shape[-1]
    difference = similarities - teacher_similarities + EPSILON
    off_diagonal = ~torch.eye(views, dtype=torch.bool, device=similarities.device)
    return _reduce((difference * off_diagonal).square().sum(dim=(1, 2)) / (views * (views - 1)), reduction)


def raml(
    student: Tensor, teacher: Tensor, *, lam_ts: float = 0.77, lam_ss: float = 0.67, reduction: Reduction = "mean"
) -> Parts:
    """RAML over p views of b images: unit embeddings (b, p, d), or (b, d) for single views.

    `lam_ts` weighs the similarities of student to teacher views, `lam_ss` those among student views, both against
    the similarities among teacher views. A part of weight 0 is left out.

    Raises:
        UserError: For a relational part with single views.
    """
    if student.ndim == 2:
        student, teacher = student.unsqueeze(1), teacher.unsqueeze(1)
    parts = {"absolute": absolute_loss(student, teacher, reduction)}
    if not lam_ts and not lam_ss:
        return parts
    if student.shape[1] < 2:
        raise UserError("relational losses need two views of an image or more", field="views", value=1)
    target = teacher @ teacher.mT
    if lam_ts:
        parts["relational_ts"] = lam_ts * relational_loss(student @ teacher.mT, target, reduction)
    if lam_ss:
        parts["relational_ss"] = lam_ss * relational_loss(student @ student.mT, target, reduction)
    return parts


def raml_batch(student: Tensor, teacher: Tensor, *, lam_ts: float = 0.7482, lam_ss: float = 0.6778) -> Parts:
    """RAML with the images of a batch (b, d) instead of the views of an image; it normalises the vectors."""
    student, teacher = (F.normalize(vectors, dim=-1).unsqueeze(0) for vectors in (student, teacher))
    return raml(student, teacher, lam_ts=lam_ts, lam_ss=lam_ss)


@dataclass(frozen=True)
class DistillationLoss:
    """One entry of `LOSSES`.

    `aligning` says whether it moves the student's embeddings to the teacher's: a loss that only compares
    within each space leaves retrieval across the two at chance. `inputs` is what it takes: `views` (b, p, d),
    `images` (b, d), `labelled images` (b, d) with labels (b,), or the `logits` (b, k) of two classifiers.
    `weight` is the published one.
    """

    function: Callable[..., Tensor | Parts]
    aligning: bool
    inputs: Literal["views", "images", "labelled images", "logits"] = "images"
    weight: float = 1.0

    def options(self) -> dict[str, object]:
        """The options of the loss, with their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _contrastive_plus(
    student: Tensor, teacher: Tensor, labels: Tensor, *, margin: float = 0.7, negatives: int = 5
) -> Tensor:
    return neighbours.asymmetric_contrastive_in_batch(
        student, teacher, labels, margin=margin, negatives=negatives, own_positive=True
    )


LOSSES: dict[str, DistillationLoss] = {
    "raml": DistillationLoss(raml, aligning=True, inputs="views"),
    "raml_batch": DistillationLoss(raml_batch, aligning=True, weight=10),
    "aml_regression": DistillationLoss(neighbours.asymmetric_regression, aligning=True),
    "aml_contrastive": DistillationLoss(
        neighbours.asymmetric_contrastive_in_batch, aligning=True, inputs="labelled images"
    ),
    "aml_contrastive_plus": DistillationLoss(_contrastive_plus, aligning=True, inputs="labelled images"),
    "fitnet": DistillationLoss(neighbours.fitnet, aligning=True, weight=2),
    "cc": DistillationLoss(neighbours.correlation_congruence, aligning=True, weight=5),
    "csd": DistillationLoss(neighbours.contextual_similarity, aligning=True, weight=10),
    "rop": DistillationLoss(neighbours.rank_order_preservation, aligning=True),
    "d3still": DistillationLoss(neighbours.d3still, aligning=True),
    "darkrank": DistillationLoss(neighbours.dark_rank, aligning=False),
    "rkd": DistillationLoss(neighbours.relational_knowledge, aligning=False),
    "pkt": DistillationLoss(neighbours.probabilistic_transfer, aligning=False, weight=30_000),
    "kd": DistillationLoss(neighbours.soft_labels, aligning=False, inputs="logits"),
}


def distillation_loss(
    name: str,
    student: Tensor,
    teacher: Tensor,
    *,
    labels: Tensor | None = None,
    weight: float | None = None,
    **options: Any,
) -> Parts:
    """The loss called `name`, as named scalars whose sum is the loss.

    Args:
        name: One of `LOSSES`.
        student: Outputs (b, p, d) of p views of b images, or (b, d). Where the loss takes images, views are taken as
            b * p images. Half precision is raised to float32.
        teacher: Outputs of the same shape.
        labels: Classes (b,), for losses of labelled images.
        weight: Replaces the published one.
        options: Those of the loss.

    Raises:
        UserError: For an unknown name or option, or when labels are missing.
    """
    if name not in LOSSES:
        raise unknown("distillation loss", name, LOSSES)
    loss = LOSSES[name]
    check_options(name, options)
    precision = torch.promote_types(student.dtype, torch.float32)
    student, teacher = student.to(precision), teacher.to(precision)
    if loss.inputs != "views" and student.ndim == 3:
        views = student.shape[1]
        student, teacher = student.flatten(0, 1), teacher.flatten(0, 1)
        labels = None if labels is None else labels.repeat_interleave(views)
    arguments = [student, teacher]
    if loss.inputs == "labelled images":
        if labels is None:
            raise UserError("needs labels", field="loss", value=name)
        arguments.append(labels)
    value = loss.function(*arguments, **options)
    parts = value if isinstance(value, dict) else {name: value}
    factor = loss.weight if weight is None else weight
    return {part: factor * scalar for part, scalar in parts.items()}


def check_options(name: str, options: Mapping[str, object]) -> None:
    """Raise `UserError` for an option that the loss called `name` does not have."""
    allowed = LOSSES[name].options()
    for option in options:
        if option not in allowed:
            guess = nearest(option, allowed)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise UserError(
                f"there is no such option{hint}", field=f"{name}.{option}", allowed=", ".join(allowed) or "none"
            )


def _reduce(per_image: Tensor, reduction: Reduction) -> Tensor:
    return per_image.sum() if reduction == "sum" else per_image.mean()
