"""What teaches a small classifier beside labels: the outputs and inner features of a larger one for the same images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from subnetbench.harness.method import UserError

Compared = Literal["logits", "features", "hints"]


@dataclass(frozen=True)
class ClassifierLoss:
    """How one loss is used where it was published.

    Attributes:
        compares: What of the two networks it takes: logits (b, k), penultimate features (b, d), or outputs of inner layers.
        weight: Its factor beside `label_weight` times the cross-entropy with the labels.
        of_samples: It is a mean over samples, so batches may be cut and spread at will.
    """

    compares: Compared
    weight: float
    label_weight: float
    of_samples: bool


CLASSIFIER_LOSSES: dict[str, ClassifierLoss] = {
    # Hinton et al. ask for a "considerably lower weight" of the labels; 0.9 and 0.1 are those of Tian et al. 2020.
    "soft_labels": ClassifierLoss("logits", 0.9, 0.1, of_samples=True),
    "dist": ClassifierLoss("logits", 1.0, 1.0, of_samples=False),
    "rkd": ClassifierLoss("features", 1.0, 1.0, of_samples=False),
    "fitnet": ClassifierLoss("hints", 100.0, 1.0, of_samples=True),
}


def dist(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> dict[str, Tensor]:
    """DIST (Huang et al., NeurIPS 2022, equations 6 to 9): 1 - Pearson correlation of class probabilities, times
    temperature squared.

    Args:
        student_logits: (b, k).
        teacher_logits: The same of the teacher, without gradient.
        temperature: Above 0; divides both before the softmax.

    Returns:
        `inter_class`: the mean over samples, of correlations over classes; `intra_class`: the mean over classes, of
        correlations over the samples of the batch.
    """
    student = (student_logits / temperature).softmax(dim=1)
    teacher = (teacher_logits / temperature).softmax(dim=1)
    return {
        "inter_class": temperature**2 * (1 - _correlations(student, teacher)).mean(),
        "intra_class": temperature**2 * (1 - _correlations(student.T, teacher.T)).mean(),
    }


def _correlations(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each row of `a` with that of `b`."""
    return F.cosine_similarity(a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True), dim=1)


def hint_regressor(student: Tensor, teacher: Tensor) -> nn.Module:
    """FitNets' regressor: a 1x1 convolution, or a linear layer, from the student's width to the teacher's.

    Args:
        student: An output of the student's layer: (b, c, h, w) or (b, c).
        teacher: One of the teacher's, of as many dimensions.

    Raises:
        UserError: For outputs of other shapes.
    """
    make: dict[int, Callable[[int, int], nn.Module]] = {4: lambda i, o: nn.Conv2d(i, o, 1), 2: nn.Linear}
    if student.ndim != teacher.ndim or student.ndim not in make:
        shapes = f"student's {tuple(student.shape)}, teacher's {tuple(teacher.shape)}"
        raise UserError("hints are maps (n, c, h, w) or vectors (n, c) of both", field="hint_layer", value=shapes)
    return make[student.ndim](student.shape[1], teacher.shape[1])


def hint_loss(guided: Tensor, hint: Tensor) -> Tensor:
    """Mean squared difference of the student's regressed outputs and the teacher's (Romero et al. 2015, equation 3).

    Maps (b, c, h, w) of different size are averaged down to the smaller height and width.
    """
    if guided.ndim == 4 and guided.shape[-2:] != hint.shape[-2:]:
        common = min(guided.shape[-2], hint.shape[-2]), min(guided.shape[-1], hint.shape[-1])
        guided, hint = (F.adaptive_avg_pool2d(each, common) for each in (guided, hint))
    return F.mse_loss(guided, hint)
