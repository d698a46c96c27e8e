"""The small networks of the mask papers: FC, Conv2, Conv4, Conv6, and the CIFAR ResNet-20, sized to the data."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from subnetbench.harness.method import UserError, unknown


class ConvNet(nn.Sequential):
    """Pairs of 3x3 convolutions, each pair followed by 2x2 max pooling, then three linear layers.

    The networks of Zhou et al. 2019 (arXiv 1905.01067) and Ramanujan et al. 2020: no normalisation, no dropout,
    biases everywhere. `widths` are the channels of each pair. Input (n, channels, size, size), output logits
    (n, classes). Layers are named conv1, conv2, ..., fc1, fc2, fc3.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        hidden: Sequence[int] = (256, 256),
        channels: int = 3,
        size: int = 32,
        classes: int = 10,
    ) -> None:
        if size >> len(widths) < 1:
            allowed = f"{2 ** len(widths)} or more"
            raise UserError("too small for the poolings", field="image_size", value=size, allowed=allowed)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        features = channels
        for stage, width in enumerate(widths):
            for index in (2 * stage + 1, 2 * stage + 2):
                layers[f"conv{index}"] = nn.Conv2d(features, width, 3, padding=1)
                layers[f"relu{index}"] = nn.ReLU()
                features = width
            layers[f"pool{stage + 1}"] = nn.MaxPool2d(2)
            size //= 2
        layers["flatten"] = nn.Flatten()
        features *= size * size
        for index, width in enumerate(hidden, start=1):
            layers[f"fc{index}"] = nn.Linear(features, width)
            layers[f"fc_relu{index}"] = nn.ReLU()
            features = width
        layers[f"fc{len(hidden) + 1}"] = nn.Linear(features, classes)
        super().__init__(layers)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to the input or to a 1x1 convolution of it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_a = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn_a = nn.BatchNorm2d(outputs)
        self.conv_b = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn_b = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        residual = F.relu(self.bn_a(self.conv_a(images)))
        return F.relu(self.downsample(images) + self.bn_b(self.conv_b(residual)))


class CifarResNet(nn.Module):
    """He's ResNet for small images as in Continuous Sparsification ("ResNet-18" of the lottery ticket papers).

    A 3x3 stem, three stages of `blocks` residual blocks with width, 2 width and 4 width channels, the second and
    third starting with stride 2, global mean, linear layer. Shortcuts with a stride are 1x1 convolutions without
    batch norm. Weights start Xavier-normal, the classifier's bias at 0. With the defaults: 272,282 weights.
    `MASKED` are the layers that the method masks: all 3x3 convolutions, 267,696 weights in 19 tensors.
    """

    MASKED = ("conv0", "*.conv_a", "*.conv_b")

    def __init__(self, *, blocks: int = 3, width: int = 16, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn0 = nn.BatchNorm2d(width)
        self.stage1 = self._stage(blocks, width, width, 1)
        self.stage2 = self._stage(blocks, width, 2 * width, 2)
        self.stage3 = self._stage(blocks, 2 * width, 4 * width, 2)
        self.classifier = nn.Linear(4 * width, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(self.classifier.bias)

    @staticmethod
    def _stage(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        first = ("block1", ResidualBlock(inputs, outputs, stride))
        rest = [(f"block{i}", ResidualBlock(outputs, outputs, 1)) for i in range(2, blocks + 1)]
        return nn.Sequential(OrderedDict([first, *rest]))

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.bn0(self.conv0(images)))
        features = self.stage3(self.stage2(self.stage1(features)))
        result: Tensor = self.classifier(features.mean((2, 3)))
        return result


def _convnet(*widths: int) -> Callable[..., nn.Module]:
    return lambda channels, size, classes: ConvNet(widths, channels=channels, size=size, classes=classes)


def _fully_connected(channels: int, size: int, classes: int) -> nn.Module:
    """The network of Zhou et al. for MNIST (LeNet-300-100): 784, 300, 100 and 10 units at 28 pixels."""
    return ConvNet((), hidden=(300, 100), channels=channels, size=size, classes=classes)


SMALL_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "fc": _fully_connected,
    "conv2": _convnet(64),
    "conv4": _convnet(64, 128),
    "conv6": _convnet(64, 128, 256),
    "resnet20": lambda channels, size, classes: CifarResNet(channels=channels, classes=classes),
}
"""By name: functions of (channels, size, classes) that build the network with fresh weights."""


def small_network(name: str, *, channels: int = 3, size: int = 32, classes: int = 10) -> nn.Module:
    """Build one of `SMALL_NETWORKS` for images (channels, size, size); raises `UserError` for an unknown name."""
    if name not in SMALL_NETWORKS:
        raise unknown("small network", name, SMALL_NETWORKS)
    return SMALL_NETWORKS[name](channels, size, classes)
