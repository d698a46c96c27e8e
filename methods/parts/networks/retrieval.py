"""Networks of the retrieval papers: their ResNets, and the head that turns feature maps into embeddings and logits.

PrunNet's ResNet has no max-pooling, SwitchNet's pools without padding and keeps the resolution in its last stage,
HGSL's keeps it too; parameter names are torchvision's, so ImageNet weights of that library load. Any other backbone
comes from `feature_map_backbone`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from subnetbench.harness.method import UserError, unknown
from subnetbench.methods.parts.networks.batch_norm import freeze_batch_norms
from subnetbench.methods.parts.networks.feature_maps import Backbone, feature_map_backbone
from subnetbench.methods.parts.networks.pooling import make_pool

StemPool = Literal["none", "padded", "ceil"]
_DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
}
# Sigmoid(-ln 99) = 0.01, the prior with which the published heads of some networks start.
PRIOR_BIAS = -math.log(99)


class ResNet(nn.Module):
    """A residual network up to its last feature map: (n, 3, h, w) to (n, c, h', w').

    `blocks` are the numbers of residual blocks of the four stages, which have `width` times 1, 2, 4 and 8 channels
    (`bottleneck`: four times as many at the end of a block, the stride in the 3x3 convolution). Convolutions keep
    PyTorch's own initialisation.
    """

    def __init__(
        self,
        block: Literal["basic", "bottleneck"],
        blocks: Sequence[int],
        *,
        width: int = 64,
        stem_pool: StemPool = "padded",
        last_stride: int = 2,
    ) -> None:
        super().__init__()
        build = _BasicBlock if block == "basic" else _Bottleneck
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = _stem_pool(stem_pool)
        channels = width
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            stride = 1 if stage == 0 else last_stride if stage == len(blocks) - 1 else 2
            layers: list[nn.Module] = []
            for i in range(count):
                layers.append(build(channels, inner, stride if i == 0 else 1))
                channels = inner * build.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.stages = len(blocks)
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in range(self.stages):
            maps = self.get_submodule(f"layer{stage + 1}")(maps)
        return maps


def prunnet_resnet(depth: int) -> ResNet:
    """PrunNet's ResNet-18 or ResNet-50: no max-pooling, so 6.9 or 16.0 GMAC at 224 pixels."""
    return _resnet(depth, stem_pool="none")


def switchnet_resnet(depth: int) -> ResNet:
    """SwitchNet's ResNet: pooling without padding, last stage at stride 1, convolutions normal by fan-out."""
    network = _resnet(depth, stem_pool="ceil", last_stride=1)
    initialise_convolutions_by_fan_out(network)
    return network


def hgsl_resnet50() -> ResNet:
    """The usual ResNet-50 with stride 1 in the last stage (its 3x3 convolution and its shortcut)."""
    return _resnet(50, last_stride=1)


RETRIEVAL_RESNETS: dict[str, Callable[[], ResNet]] = {
    "prunnet_resnet18": lambda: prunnet_resnet(18),
    "prunnet_resnet50": lambda: prunnet_resnet(50),
    "switchnet_resnet18": lambda: switchnet_resnet(18),
    "switchnet_resnet50": lambda: switchnet_resnet(50),
    "hgsl_resnet50": hgsl_resnet50,
}


def retrieval_backbone(name: str, *, image_size: int, channels: int = 3, pretrained: bool = False) -> Backbone:
    """The backbone called `name`: one of `RETRIEVAL_RESNETS`, else what `feature_map_backbone` knows.

    `hgsl_resnet50` is the only paper's ResNet with published weights, torchvision's first ones.

    Raises:
        UserError: For images of other than 3 channels, or weights that nobody has published.
    """
    if name not in RETRIEVAL_RESNETS:
        return feature_map_backbone(name, image_size=image_size, channels=channels, pretrained=pretrained)
    if channels != 3:
        raise UserError("takes images of 3 channels", field="network", value=name)
    if pretrained and name != "hgsl_resnet50":
        raise UserError("was trained from random weights", field="pretrained", value=name, allowed="false")
    network = RETRIEVAL_RESNETS[name]()
    with torch.no_grad():
        shape = network.eval()(torch.zeros(1, 3, image_size, image_size)).shape[1:]
    network.train()
    if not pretrained:
        return Backbone(network, (shape[0], shape[1], shape[2]), None, None)
    usual = feature_map_backbone("resnet50", image_size=image_size, pretrained=True)
    network.load_state_dict(usual.module.state_dict())
    return Backbone(network, (shape[0], shape[1], shape[2]), usual.mean, usual.std)


def initialise_convolutions_by_fan_out(network: nn.Module) -> None:
    """All convolutions normal with standard deviation sqrt(2 / (k * k * out))."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_out))


class MaxAveragePool(nn.Module):
    """The maximum and the mean of each channel, in this order. (n, c, h, w) to (n, 2c)."""

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([maps.amax(dim=(-2, -1)), maps.mean(dim=(-2, -1))], dim=1)


def retrieval_pool(name: str, channels: int) -> tuple[nn.Module, int]:
    """The pooling called `name` (`max_avg` or one of `POOLINGS`) and the length of what it returns."""
    if name == "max_avg":
        return MaxAveragePool(), 2 * channels
    return make_pool(name, channels), channels


class Projector(nn.Module):
    """Pooled features (n, features) to embeddings (n, dim): linear and batch norm, after optional hidden layers.

    A hidden layer is linear, ReLU, batch norm and dropout of 0.1, as wide as its input.
    """

    def __init__(self, features: int, dim: int = 256, *, hidden_layers: int = 0) -> None:
        super().__init__()
        hidden: list[nn.Module] = []
        for _ in range(hidden_layers):
            hidden += [nn.Linear(features, features), nn.ReLU(), nn.BatchNorm1d(features), nn.Dropout(0.1)]
        self.hidden = nn.Sequential(*hidden)
        self.linear = nn.Linear(features, dim)
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.norm(self.linear(self.hidden(features)))
        return result


class ClassifiedEmbedding(nn.Module):
    """Images to (embeddings (n, dim), logits (n, classes)): backbone, pooling, projector, classifier.

    Embeddings are not normalised; retrieval compares them by cosine. With `dim=None` there is no projector and
    the pooled features are the embedding. The classifier is for training only; `embed` does without it.
    `prior_bias` starts the biases of projector and classifier at -ln 99 instead of PyTorch's uniform ones. With
    `freeze_batch_statistics` batch norms keep their running statistics in training and use them.
    """

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        classes: int,
        *,
        dim: int | None = 256,
        hidden_layers: int = 0,
        pooling: str = "spoc",
        prior_bias: bool = False,
        freeze_batch_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool, features = retrieval_pool(pooling, channels)
        self.projector = nn.Identity() if dim is None else Projector(features, dim, hidden_layers=hidden_layers)
        self.dim = features if dim is None else dim
        self.freeze_batch_statistics = freeze_batch_statistics
        self.classifier = nn.Linear(self.dim, classes)
        for linear in self._last_layers():
            nn.init.kaiming_normal_(linear.weight, mode="fan_out")
            if prior_bias:
                nn.init.constant_(linear.bias, PRIOR_BIAS)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (n, dim) of images (n, channels, size, size), without logits."""
        result: Tensor = self.projector(self.pool(self.backbone(images)))
        return result

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.embed(images)
        return embeddings, self.classifier(embeddings)

    def train(self, mode: bool = True) -> "ClassifiedEmbedding":
        super().train(mode)
        if self.freeze_batch_statistics:
            freeze_batch_norms(self)
        return self

    def undecayed(self) -> list[nn.Parameter]:
        """The biases that the published recipe gives no weight decay: the last ones of projector and classifier."""
        return [linear.bias for linear in self._last_layers()]

    def _last_layers(self) -> list[nn.Linear]:
        layers = [getattr(self.projector, "linear", None), self.classifier]
        return [layer for layer in layers if isinstance(layer, nn.Linear)]


class _BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.relu(self.bn2(self.conv2(y)) + self.downsample(x))
        return result


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        result: Tensor = self.relu(self.bn3(self.conv3(y)) + self.downsample(x))
        return result


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _stem_pool(kind: StemPool) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    if kind == "ceil":
        return nn.MaxPool2d(3, 2, ceil_mode=True)
    return nn.MaxPool2d(3, 2, padding=1)


def _resnet(depth: int, *, stem_pool: StemPool = "padded", last_stride: int = 2) -> ResNet:
    if depth not in _DEPTHS:
        raise unknown("ResNet of depth", str(depth), map(str, _DEPTHS))
    block, blocks = _DEPTHS[depth]
    kind: Literal["basic", "bottleneck"] = "basic" if block == "basic" else "bottleneck"
    return ResNet(kind, blocks, stem_pool=stem_pool, last_stride=last_stride)
