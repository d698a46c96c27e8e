"""Small networks with the parameter names of the published programs, written from what their files hold.

Each has the names, shapes and arithmetic of the program it stands for, and no line of this project in its forward pass.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in evaluation mode with every parameter and running statistic drawn afresh."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.is_floating_point() and value.numel() > 1:
                scale = 1.0 if value.ndim < 2 else (2 / value[0].numel()) ** 0.5
                value.normal_(0, scale, generator=generator)
    return network.eval()


class MaskedLayer(nn.Module):
    """ASLP's prunable layers in their final form: scores `mask`, and with `factor` a learned `scaling_param`."""

    def __init__(self, shape: tuple[int, ...], *, factor: bool) -> None:
        super().__init__()
        self.weight, self.mask = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        if factor:
            self.scaling_param = nn.Parameter(torch.tensor(1.3))

    def keep(self) -> Tensor:
        return self.mask >= 0

    def forward(self, x: Tensor) -> Tensor:
        weight = self.keep() * self.weight * getattr(self, "scaling_param", 1.0)
        return F.conv2d(x, weight, self.bias, padding="same") if weight.ndim == 4 else F.linear(x, weight, self.bias)


class HalfMaskedLayer(MaskedLayer):
    """The same program's edge-popup at a sparsity of one half."""

    def keep(self) -> Tensor:
        magnitude = self.mask.abs()
        return magnitude >= magnitude.flatten().kthvalue(1 + round(0.5 * (magnitude.numel() - 1))).values


class Conv2(nn.Module):
    """ASLP's Conv2 for images of 8 pixels."""

    def __init__(self, layer: type[MaskedLayer] = MaskedLayer, *, factor: bool = False, classes: int = 8) -> None:
        super().__init__()
        self.conv1 = layer((64, 3, 3, 3), factor=factor)
        self.conv2 = layer((64, 64, 3, 3), factor=factor)
        self.pool1 = nn.MaxPool2d(2, stride=2)
        self.fc1 = layer((256, 64 * 16), factor=factor)
        self.fc2 = layer((256, 256), factor=factor)
        self.fc3 = layer((classes, 256), factor=factor)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(F.relu(self.conv2(F.relu(self.conv1(x))))).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class SubnetConv(nn.Conv2d):
    """The convolution of the edge-popup authors, at a kept share of 0.3."""

    def __init__(self, *args: int, **options: int) -> None:
        super().__init__(*args, bias=False, **options)
        self.scores = nn.Parameter(torch.zeros_like(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        order = self.scores.abs().flatten().sort()[1]
        gate = torch.ones(order.numel())
        gate[order[: int((1 - 0.3) * order.numel())]] = 0
        return F.conv2d(x, self.weight * gate.view_as(self.weight), None, self.stride, self.padding)


class HiddenConv2(nn.Module):
    """The edge-popup authors' Conv2 for images of 8 pixels: linear layers are 1x1 convolutions."""

    def __init__(self, classes: int = 8) -> None:
        super().__init__()
        layers = [SubnetConv(3, 64, 3, padding=1), nn.ReLU(), SubnetConv(64, 64, 3, padding=1), nn.ReLU()]
        self.convs = nn.Sequential(*layers, nn.MaxPool2d(2))
        widths = (64 * 16, 256, 256, classes)
        parts = [SubnetConv(a, b, 1) for a, b in pairwise(widths)]
        self.linear = nn.Sequential(parts[0], nn.ReLU(), parts[1], nn.ReLU(), parts[2])

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convs(x).flatten(1)[:, :, None, None]).flatten(1)


class SoftMaskedConv(nn.Module):
    """Continuous Sparsification's convolution as a ticket, with scores that started at 0."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 3, 3))
        self.init_weight = nn.Parameter(torch.zeros(outputs, inputs, 3, 3), requires_grad=False)
        self.mask_weight = nn.Parameter(torch.zeros(outputs, inputs, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * 2 * (self.mask_weight > 0), None, self.stride, 1)


class SoftBlock(nn.Module):
    """Its residual block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_a, self.bn_a = SoftMaskedConv(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv_b, self.bn_b = SoftMaskedConv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.downsample = None if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn_b(self.conv_b(F.relu(self.bn_a(self.conv_a(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class SoftResNet(nn.Module):
    """Its ResNet of depth 20."""

    def __init__(self, classes: int = 8) -> None:
        super().__init__()
        self.conv0, self.bn0 = SoftMaskedConv(3, 16), nn.BatchNorm2d(16)
        for stage, (inputs, outputs) in enumerate(((16, 16), (16, 32), (32, 64)), start=1):
            blocks = [SoftBlock(inputs, outputs, 1 if stage == 1 else 2)]
            blocks += [SoftBlock(outputs, outputs, 1) for _ in range(2)]
            named = nn.ModuleDict({f"block{i}": block for i, block in enumerate(blocks, start=1)})
            self.add_module(f"stage{stage}", named)
        self.classifier = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.conv0(x)))
        for stage in (self.stage1, self.stage2, self.stage3):
            for block in stage.values():
                x = block(x)
        return self.classifier(x.mean((2, 3)))


class GeM(nn.Module):
    """RAML's generalised mean with one learned exponent."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.ones(1) * 2.6)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x.clamp(min=1e-6).pow(self.p), x.shape[-2:]).pow(1 / self.p)


class ImageRetrievalNet(nn.Module):
    """RAML's network around torchvision's ResNet-18; outputs are transposed to rows."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        from torchvision.models import resnet18

        self.backbone = nn.Sequential(*list(resnet18(weights=None).children())[:-2])
        self.pool, self.whiten = GeM(), nn.Linear(512, dim)
        self.meta = {
            "architecture": "resnet18",
            "pooling": "gem",
            "whitening": dim,
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "outputdim": dim,
        }

    def forward(self, x: Tensor) -> Tensor:
        def unit(v: Tensor) -> Tensor:
            return v / (v.norm(dim=1, keepdim=True) + 1e-6)

        return unit(self.whiten(unit(self.pool(self.backbone(x))).squeeze(-1).squeeze(-1)))


class Mlp(nn.Module):
    """PrunNet's heads; `norms` are batch norms of the last layer, one a width of SwitchNet (None: no norm)."""

    def __init__(self, inputs: int, outputs: int, norms: int | None = None) -> None:
        super().__init__()
        self.projection, self.last_layer = nn.Sequential(), nn.Linear(inputs, outputs)
        if norms == 0:
            self.last_bn: nn.Module = nn.BatchNorm1d(outputs)
        elif norms:
            self.last_bn = Switched([outputs] * norms, nn.BatchNorm1d)


class Switched(nn.Module):
    """SwitchNet's batch norms, narrowest first."""

    def __init__(self, sizes: list[int], kind: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.bn = nn.ModuleList(kind(size) for size in sizes)


class PrunNetBlock(nn.Module):
    """PrunNet's basic block, whose shortcut is `conv3` and `bn3`."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        sizes = [(inputs, 3), (outputs, 3)] + ([(inputs, 1)] if stride > 1 else [])
        for i, (size, kernel) in enumerate(sizes, start=1):
            conv = nn.Conv2d(size, outputs, kernel, bias=False)
            conv.w_m = nn.Parameter(torch.zeros_like(conv.weight))
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor, sparsity: float) -> Tensor:
        y = F.relu(self.bn1(subnet_conv(self.conv1, x, sparsity, self.stride, 1)))
        y = self.bn2(subnet_conv(self.conv2, y, sparsity, 1, 1))
        shortcut = self.bn3(subnet_conv(self.conv3, x, sparsity, self.stride, 0)) if self.stride > 1 else x
        return F.relu(y + shortcut)


def subnet_conv(conv: nn.Conv2d, x: Tensor, sparsity: float, stride: int, padding: int) -> Tensor:
    """A convolution with the weights whose |score| reaches the k-th smallest."""
    magnitude = conv.w_m.abs()
    threshold = magnitude.flatten().kthvalue(1 + round(0.01 * (100 * sparsity) * (magnitude.numel() - 1))).values
    return F.conv2d(x, conv.weight * (magnitude >= threshold), None, stride, padding)


class PrunNetResNet18(nn.Module):
    """PrunNet's ResNet-18 with its projector and classifier; called with the share that is removed."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, bias=False), nn.BatchNorm2d(64)
        self.conv1.w_m = nn.Parameter(torch.zeros_like(self.conv1.weight))
        for stage, (inputs, outputs) in enumerate(((64, 64), (64, 128), (128, 256), (256, 512)), start=1):
            first = PrunNetBlock(inputs, outputs, 1 if stage == 1 else 2)
            self.add_module(f"layer{stage}", nn.ModuleList([first, PrunNetBlock(outputs, outputs, 1)]))
        self.projector, self.projection_cls = Mlp(512, dim, 0), Mlp(dim, classes)

    def forward(self, x: Tensor, sparsity: float) -> Tensor:
        x = F.relu(self.bn1(subnet_conv(self.conv1, x, sparsity, 2, 3)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x, sparsity)
        return self.projector.last_bn(self.projector.last_layer(x.mean((2, 3))))


class SwitchResNet18(nn.Module):
    """SwitchNet's ResNet-18 (last stride 1) at half and full width; called with the number of the width."""

    WIDTHS = (0.5, 1.0)

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, bias=False), self._norms(64)
        for stage, (inputs, outputs) in enumerate(((64, 64), (64, 128), (128, 256), (256, 512)), start=1):
            blocks = nn.ModuleList()
            for i in range(2):
                block = nn.Module()
                block.conv1 = nn.Conv2d(outputs if i else inputs, outputs, 3, bias=False)
                block.conv2, block.bn1, block.bn2 = (
                    nn.Conv2d(outputs, outputs, 3, bias=False),
                    self._norms(outputs),
                    self._norms(outputs),
                )
                if inputs != outputs and i == 0:
                    shortcut = nn.Conv2d(inputs, outputs, 1, bias=False)
                    block.downsample = nn.Sequential(shortcut, self._norms(outputs))
                blocks.append(block)
            self.add_module(f"layer{stage}", blocks)
        self.projector, self.projection_cls = Mlp(512, dim, len(self.WIDTHS)), Mlp(dim, classes)

    def _norms(self, channels: int) -> Switched:
        return Switched([int(channels * width) for width in self.WIDTHS])

    def forward(self, x: Tensor, index: int) -> Tensor:
        def conv(layer: nn.Conv2d, x: Tensor, stride: int, padding: int) -> Tensor:
            outputs = int(layer.out_channels * self.WIDTHS[index])
            return F.conv2d(x, layer.weight[:outputs, : x.shape[1]], None, stride, padding)

        x = F.relu(self.bn1.bn[index](conv(self.conv1, x, 2, 3)))
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        for stage, blocks in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            for i, block in enumerate(blocks):
                stride = 2 if stage in (2, 3) and i == 0 else 1
                y = F.relu(block.bn1.bn[index](conv(block.conv1, x, stride, 1)))
                y = block.bn2.bn[index](conv(block.conv2, y, 1, 1))
                if hasattr(block, "downsample"):
                    x = block.downsample[1].bn[index](conv(block.downsample[0], x, stride, 0))
                x = F.relu(x + y)
        x = x.mean((2, 3))
        projected = F.linear(x, self.projector.last_layer.weight[:, : x.shape[1]], self.projector.last_layer.bias)
        return self.projector.last_bn.bn[index](projected)
