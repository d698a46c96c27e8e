"""Convolutional students of a CLIP image encoder: a pretrained backbone and a projection head into CLIP's space.

As published with the cascades of Hoenig, Ackermann and Chi (arXiv 2303.15595): only the head is trained, towards the
teacher's image embeddings, without texts or labels; at search time the student uses the teacher's text encoder. Since
backbone and teacher are frozen and images are not augmented, both run once and the head is trained on what they gave.
"""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnetbench.harness.method import UserError
from subnetbench.methods.parts.networks.feature_maps import feature_map_backbone
from subnetbench.methods.parts.networks.pooling import AveragePool

BackboneMode = Literal["frozen", "trained", "published"]


class ClipStudent(nn.Module):
    """Images (n, channels, size, size) to embeddings (n, embedding): backbone, global average, head.

    `mode` says what training does to the backbone: nothing (`frozen`: evaluation mode, no gradients), all
    (`trained`), or what the published code does: no gradients, but batch norms use the statistics of the batch and
    their running ones drift, although only the head is saved and later meets the original ones.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, mode: BackboneMode = "frozen") -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = AveragePool()
        self.head = head
        self.mode = mode
        self.backbone.requires_grad_(mode == "trained")

    def features(self, images: Tensor) -> Tensor:
        """Globally averaged maps (n, features)."""
        with torch.set_grad_enabled(self.mode == "trained" and torch.is_grad_enabled()):
            result: Tensor = self.pool(self.backbone(images))
            return result

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.head(self.features(images))
        return result

    def train(self, mode: bool = True) -> "ClipStudent":
        super().train(mode)
        if self.mode == "frozen":
            self.backbone.eval()
        return self


class ImageFeatures(nn.Module):
    """What a student's head gets, as a network of its own."""

    def __init__(self, student: ClipStudent) -> None:
        super().__init__()
        self.backbone, self.pool = student.backbone, student.pool

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.pool(self.backbone(images))
        return result


def clip_student(
    architecture: str,
    *,
    embedding: int = 512,
    layers: int = 1,
    hidden: int = 512,
    image_size: int = 224,
    pretrained: bool = False,
    mode: BackboneMode = "frozen",
) -> ClipStudent:
    """A student with the backbone called `architecture`: any of torchvision or timm that ends in a feature map.

    Args:
        architecture: Name of the backbone.
        embedding: Embedding size, the teacher's.
        layers: Linear layers of the head.
        hidden: Width between the layers of the head.
        image_size: Side of the images in pixels.
        pretrained: Take the published weights of the backbone.
        mode: What training does to the backbone (see `ClipStudent`).
    """
    backbone = feature_map_backbone(architecture, image_size=image_size, pretrained=pretrained)
    head = projection_head(backbone.map_shape[0], embedding, layers=layers, hidden=hidden)
    return ClipStudent(backbone.module, head, mode).eval()


def projection_head(features: int, embedding: int = 512, *, layers: int = 1, hidden: int = 512) -> nn.Module:
    """`layers` linear layers with bias from `features` to `embedding`, with `hidden` and ReLU between them."""
    if layers < 1:
        raise UserError("a head has at least one layer", field="layers", value=layers)
    widths = [features, *[hidden] * (layers - 1), embedding]
    modules: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
    for inputs, outputs in pairwise(widths[1:]):
        modules += [nn.ReLU(), nn.Linear(inputs, outputs)]
    return modules[0] if layers == 1 else nn.Sequential(*modules)


def cosine_distillation_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean of 1 - cosine over rows of embeddings (n, d) that need not be normalised."""
    return 1 - F.cosine_similarity(teacher, student, dim=1).mean()
