"""Embedding networks: backbone, pooling, L2 normalisation, whitening, L2 normalisation (Radenovic et al. 2018)."""

import copy

import torch
from torch import Tensor, nn

from subnetbench.methods.parts.networks.batch_norm import freeze_batch_norms
from subnetbench.methods.parts.networks.pooling import l2_normalise
from subnetbench.methods.parts.networks.retrieval import retrieval_backbone, retrieval_pool
from subnetbench.methods.parts.optim.groups import ParameterGroup

ROLES = ("backbone", "pool", "whitening")


class EmbeddingNetwork(nn.Module):
    """Images (n, channels, height, width) to unit embeddings (n, dim).

    `backbone` returns maps (n, c, h, w), or vectors with the pooling `no_pool`. `features` is the length of the
    pooled descriptor; `dim` the output length of the whitening, a linear layer with bias that is trained with the
    rest, or None for no whitening. With `freeze_batch_statistics` batch norms keep their running statistics in
    training and use them; their scales and shifts are trained all the same.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pool: nn.Module,
        features: int,
        dim: int | None = None,
        *,
        freeze_batch_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        self.whitening = nn.Identity() if dim is None else nn.Linear(features, dim)
        self.dim = features if dim is None else dim
        self.freeze_batch_statistics = freeze_batch_statistics

    def descriptors(self, images: Tensor) -> Tensor:
        """Pooled unit descriptors (n, features), before whitening."""
        return l2_normalise(self.pool(self.backbone(images)))

    def forward(self, images: Tensor) -> Tensor:
        descriptors = self.descriptors(images)
        if isinstance(self.whitening, nn.Identity):
            return descriptors
        return l2_normalise(self.whitening(descriptors))

    def train(self, mode: bool = True) -> "EmbeddingNetwork":
        super().train(mode)
        if self.freeze_batch_statistics:
            freeze_batch_norms(self)
        return self

    @torch.no_grad()
    def set_whitening(self, mean: Tensor, projection: Tensor) -> None:
        """Make the whitening layer compute `projection[:dim] @ (x - mean)`, as `parts.whitening` returns them."""
        if not isinstance(self.whitening, nn.Linear):
            raise TypeError("this network has no whitening layer")
        rows = projection[: self.dim]
        self.whitening.weight.copy_(rows)
        self.whitening.bias.copy_(-rows @ mean)

    def parameter_groups(
        self, lr: float, weight_decay: float = 0.0, pool_lr_multiplier: float = 1.0
    ) -> list[ParameterGroup]:
        """Optimizer groups named after their roles; learned pooling exponents get no weight decay."""
        settings = {
            "backbone": {"lr": lr, "weight_decay": weight_decay},
            "pool": {"lr": lr * pool_lr_multiplier, "weight_decay": 0.0},
            "whitening": {"lr": lr, "weight_decay": weight_decay},
        }
        parameters = {role: list(self.get_submodule(role).parameters()) for role in ROLES}
        return [
            {"name": role, "params": parameters[role], "initial_lr": settings[role]["lr"], **settings[role]}
            for role in ROLES
            if parameters[role]
        ]


class ForeignEmbedding(nn.Module):
    """Any network that embeds images, trained further as an embedding network: all its parameters in one group."""

    def __init__(self, network: nn.Module, *, freeze_batch_statistics: bool = False) -> None:
        super().__init__()
        self.network = network
        self.freeze_batch_statistics = freeze_batch_statistics

    def forward(self, images: Tensor) -> Tensor:
        return l2_normalise(self.network(images))

    def train(self, mode: bool = True) -> "ForeignEmbedding":
        super().train(mode)
        if self.freeze_batch_statistics:
            freeze_batch_norms(self)
        return self

    def parameter_groups(
        self, lr: float, weight_decay: float = 0.0, pool_lr_multiplier: float = 1.0
    ) -> list[ParameterGroup]:
        """One optimizer group; where a foreign network pools is not known, so `pool_lr_multiplier` does nothing."""
        params = list(self.network.parameters())
        return [{"name": "network", "params": params, "initial_lr": lr, "lr": lr, "weight_decay": weight_decay}]


def trainable_copy(network: nn.Module, *, freeze_batch_statistics: bool = False) -> EmbeddingNetwork | ForeignEmbedding:
    """A copy of a network that embeds images, to be trained further; `network` itself stays as it is."""
    copied = copy.deepcopy(network).requires_grad_()
    if not isinstance(copied, EmbeddingNetwork):
        return ForeignEmbedding(copied, freeze_batch_statistics=freeze_batch_statistics)
    copied.freeze_batch_statistics = freeze_batch_statistics
    return copied


class Descriptors(nn.Module):
    """The part of an embedding network in front of its whitening layer."""

    def __init__(self, network: EmbeddingNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.descriptors(images)


def embedding_network(
    architecture: str,
    *,
    image_size: int,
    channels: int = 3,
    pool: str = "gem",
    dim: int | None = 512,
    pretrained: bool = False,
    freeze_batch_statistics: bool = False,
) -> EmbeddingNetwork:
    """A network around the backbone called `architecture` (see `retrieval_backbone`), for square images of one size.

    Args:
        architecture: Name of the backbone.
        image_size: Side of the images in pixels.
        channels: Channels of the images.
        pool: `max_avg`, or one of `POOLINGS`.
        dim: Embedding size after the whitening layer; None: the pooled descriptor, without one.
        pretrained: Take the published weights of the backbone.
        freeze_batch_statistics: Let batch norms keep and use their running statistics in training.

    Raises:
        UserError: For an unknown architecture or pooling.
        DataError: When pretrained weights cannot be had.
    """
    backbone = retrieval_backbone(architecture, image_size=image_size, channels=channels, pretrained=pretrained)
    pooling, _ = retrieval_pool(pool, backbone.map_shape[0])
    features = pooling(torch.zeros(1, *backbone.map_shape)).shape[1]
    return EmbeddingNetwork(backbone.module, pooling, features, dim, freeze_batch_statistics=freeze_batch_statistics)
