"""Distillation losses of other papers, over a batch of images that the student and the teacher both see.

`student` and `teacher` are embeddings (b, d) of the same images; gradients flow into the student only, which the
callers see to by computing the teacher without gradients. Losses that need it normalise by themselves.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from subnetbench.methods.parts.networks.pooling import EPSILON


def fitnet(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the embeddings as they are (FitNets, Romero et al. 2015)."""
    return F.mse_loss(student, teacher)


def correlation_congruence(student: Tensor, teacher: Tensor) -> Tensor:
    """Products of the absolute differences of neighbours in the batch (Peng et al. 2019, as published in code).

    The order of the batch matters: image i meets image i + 1 only.
    """
    delta = (_unit(student) - _unit(teacher)).abs()
    return (delta[:-1] * delta[1:]).sum(dim=1).mean()


def contextual_similarity(
    student: Tensor,
    teacher: Tensor,
    *,
    top_k: int = 256,
    student_temperature: float = 1.0,
    teacher_temperature: float = 0.01,
) -> Tensor:
    """CSD (Wu et al. 2022): divergence of the student-to-teacher similarities from the teacher's own, over the
    teacher's `top_k` nearest in the batch."""
    target, similarity = _ranked_similarities(student, teacher, top_k)
    log_probability = (similarity / student_temperature).log_softmax(dim=1)
    return F.kl_div(log_probability, (target / teacher_temperature).softmax(dim=1), reduction="batchmean")


def rank_order_preservation(
    student: Tensor, teacher: Tensor, *, top_k: int = 256, temperature: float = 0.1, rank_weight: float = 0.2
) -> Tensor:
    """ROP (Wu et al. 2023): the student keeps, softly, which of the teacher's `top_k` outranks which."""
    target, similarity = _ranked_similarities(student, teacher, top_k)
    in_teacher = ((target.unsqueeze(1) - target.unsqueeze(2)) / 1e-6).sigmoid()
    in_student = ((similarity.unsqueeze(1) - target.unsqueeze(2)) / temperature).sigmoid()
    count = target.shape[1]
    ranks = torch.arange(1, count + 1, device=target.device)
    weight = (rank_weight * target).softmax(dim=1) * ranks
    return ((in_teacher - in_student).square().sum(dim=2) * weight).sum(dim=1).mean() / count


def d3still(
    student: Tensor,
    teacher: Tensor,
    *,
    top_k: int = 10,
    feature_weight: float = 100.0,
    inconsistent_weight: float = 5.0,
    consistent_weight: float = 1.0,
) -> dict[str, Tensor]:
    """D3still (Xie et al. 2024): the own image's similarity, and the differences of similarities between ranks.

    Differences on which student and teacher disagree in sign are weighted apart from those on which they agree.
    """
    target, similarity = _ranked_similarities(student, teacher, top_k)
    feature = torch.linalg.vector_norm(target[:, 0] - similarity[:, 0]) / len(target)
    in_teacher, in_student = _differences(target[:, 1:]), _differences(similarity[:, 1:])
    change = (in_student - in_teacher) / (0.1 + in_teacher.abs())
    sign = (_no_zeros(in_student) * _no_zeros(in_teacher)).sign().detach()
    others = max(target.shape[1] - 1, 1)

    def part(mask: Tensor) -> Tensor:
        result: Tensor = torch.linalg.matrix_norm(change * mask).mean() / others
        return result

    return {
        "feature": feature_weight * feature,
        "inconsistent": inconsistent_weight * part(sign < 0),
        "consistent": consistent_weight * part(sign > 0),
    }


def relational_knowledge(
    student: Tensor, teacher: Tensor, *, distance_weight: float = 25.0, angle_weight: float = 50.0
) -> dict[str, Tensor]:
    """RKD (Park et al. 2019): distances relative to their mean, and cosines of the angles of all triples."""
    parts = {}
    if distance_weight:
        parts["distance"] = distance_weight * F.smooth_l1_loss(
            _relative_distances(student), _relative_distances(teacher)
        )
    if angle_weight:
        parts["angle"] = angle_weight * F.smooth_l1_loss(_angles(student), _angles(teacher))
    return parts


def probabilistic_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """PKT (Passalis and Tefas 2018): divergence between the rows of normalised similarities, per entry."""
    epsilon = 1e-7
    chances = []
    for vectors in (student, teacher):
        unit = vectors / (torch.linalg.vector_norm(vectors, dim=1, keepdim=True) + epsilon)
        similarity = (unit @ unit.T + 1) / 2
        chances.append(similarity / similarity.sum(dim=1, keepdim=True))
    p, q = chances
    result: Tensor = (q * ((q + epsilon) / (p + epsilon)).log()).mean()
    return result


def soft_labels(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 2.0) -> Tensor:
    """KD (Hinton et al. 2014): divergence of the softened class probabilities, times temperature squared."""
    log_probability = (student_logits / temperature).log_softmax(dim=1)
    target = (teacher_logits / temperature).softmax(dim=1)
    return F.kl_div(log_probability, target, reduction="batchmean") * temperature**2


def dark_rank(student: Tensor, teacher: Tensor, *, alpha: float = 3.0, beta: float = 3.0, count: int = 4) -> Tensor:
    """DarkRank (Chen et al. 2018, hard version): how likely the student finds the teacher's order of each image's
    `count` nearest in the batch, with scores -alpha distance^beta."""
    scores = [-alpha * _pairwise_distances(_unit(vectors)).pow(beta) for vectors in (student, teacher)]
    own = torch.eye(len(student), dtype=torch.bool, device=student.device)
    order = scores[1].masked_fill(own, -math.inf).topk(min(count, len(student) - 1), dim=1).indices
    ordered = scores[0].gather(1, order)
    remaining = ordered.flip(1).logcumsumexp(dim=1).flip(1)
    return (remaining - ordered).sum(dim=1).mean()


def asymmetric_regression(student: Tensor, teacher: Tensor) -> Tensor:
    """AML's regression (Budnik and Avrithis 2020): half the squared distance of each image's two embeddings."""
    return _squared_distance(student, teacher).mean() / 2


def asymmetric_contrastive_in_batch(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    margin: float = 0.7,
    negatives: int = 5,
    own_positive: bool = False,
) -> Tensor:
    """`asymmetric_contrastive` with what the batch (b, d) offers: all images of an anchor's class as positives,
    and of the others the `negatives` that the teacher finds most similar to it.

    With `own_positive` the anchor itself, as the teacher sees it, is a positive too ("Contr+").
    """
    same = labels.unsqueeze(0) == labels.unsqueeze(1)
    hardness = (teacher @ teacher.T).masked_fill(same, -math.inf)
    hardness, nearest = hardness.topk(min(negatives, len(labels) - 1), dim=1)
    if not own_positive:
        same.fill_diagonal_(False)
    distance = torch.cdist(student + EPSILON, teacher, compute_mode="donot_use_mm_for_euclid_dist")
    shortfall = F.relu(margin - distance.gather(1, nearest)).masked_fill(hardness.isinf(), 0.0)
    return ((distance * same).square().sum(dim=1) + shortfall.square().sum(dim=1)).mean() / 2


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1)


def _squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """|a - b + epsilon|^2 along the last axis; the epsilon keeps the root differentiable at 0."""
    return (a - b + EPSILON).square().sum(dim=-1)


def _pairwise_distances(vectors: Tensor) -> Tensor:
    """Euclidean distances (b, b), with zeros, and zero gradients, on the diagonal."""
    squared = vectors.square().sum(dim=1)
    distance = (squared.unsqueeze(0) + squared.unsqueeze(1) - 2 * vectors @ vectors.T).clamp(min=1e-12).sqrt()
    own = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    return distance.masked_fill(own, 0.0)


def _relative_distances(vectors: Tensor) -> Tensor:
    distance = _pairwise_distances(vectors)
    return distance / distance[distance > 0].mean()


def _angles(vectors: Tensor) -> Tensor:
    """Cosines of the angles that all pairs form at all third points: (b, b, b)."""
    directions = _unit(vectors.unsqueeze(0) - vectors.unsqueeze(1))
    return directions @ directions.mT


def _ranked_similarities(student: Tensor, teacher: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The teacher's cosines to its `top_k` nearest in the batch, falling, and those of the student to the same.

    Float64 (b, k); the image itself is among them.
    """
    student, teacher = _unit(student).double(), _unit(teacher).double()
    target, order = (teacher @ teacher.T).sort(dim=1, descending=True)
    order = order[:, :top_k]
    return target[:, :top_k], (student @ teacher.T).gather(1, order)


def _differences(values: Tensor) -> Tensor:
    """(b, k) to the differences of all pairs (b, k, k)."""
    return values.unsqueeze(1) - values.unsqueeze(2)


def _no_zeros(values: Tensor) -> Tensor:
    return torch.where(values == 0, torch.ones_like(values), values)
