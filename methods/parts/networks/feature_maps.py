"""Backbones that end in a feature map: torchvision and timm models without their heads, and small networks.

Names are tried in this order: `cifar_resnetN` and `cifar_resnetNxW` (the residual networks for 32 pixel images of
depth N = 6 n + 2, W times as wide), `cnn32-64-64` (a convolution of stride 2 for each width), torchvision's names,
timm's names. `timm/NAME` means timm's model.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from subnetbench.harness.method import (
    DataError,
    UserError,
    load_packaged_weights,
    nearest,
    packaged_weights_file,
)
from subnetbench.methods.parts.networks.memory_format import prefer_channels_last
from subnetbench.methods.parts.networks.small import CifarResNet

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A network that returns maps, with what one dry run and its weights say about it.

    `map_shape` is (channels, height, width) at the given image size. `mean` and `std` are the pixel statistics
    (for pixels in [0, 1]) that the pretrained weights expect; None for fresh weights.
    """

    module: nn.Module
    map_shape: tuple[int, int, int]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def feature_map_backbone(
    architecture: str, *, image_size: int, channels: int = 3, pretrained: bool = False
) -> Backbone:
    """The backbone called `architecture`, without pooling and classifier.

    Args:
        architecture: Its name (see above).
        image_size: Side of the images in pixels.
        channels: Channels of the images.
        pretrained: Take the published ImageNet weights.

    Raises:
        UserError: For a name that is not known or has no feature map.
        DataError: When weights are missing.
    """
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    try:
        if re.fullmatch(r"cifar_resnet\d+(x\d+)?", architecture):
            if pretrained:
                raise UserError("there are no pretrained weights", field="architecture", value=architecture)
            module: nn.Module = _cifar_resnet(architecture, channels)
        elif re.fullmatch(r"cnn\d+(-\d+)*", architecture):
            if pretrained:
                raise UserError("there are no pretrained weights", field="architecture", value=architecture)
            module = strided_cnn([int(width) for width in architecture.removeprefix("cnn").split("-")], channels)
        elif channels == 3 and architecture in _torchvision_names():
            module, mean, std = _torchvision_backbone(architecture, image_size, pretrained)
        else:
            module, mean, std = _timm_backbone(architecture.removeprefix("timm/"), image_size, channels, pretrained)
    except Exception as error:
        if pretrained and not isinstance(error, UserError):
            raise DataError(f"the pretrained weights of {architecture!r} cannot be had: {error}") from error
        raise
    shape = _dry_run(module, architecture, channels, image_size)
    return Backbone(prefer_channels_last(module), shape, *((mean, std) if pretrained else (None, None)))


def strided_cnn(widths: Sequence[int], channels: int = 3) -> nn.Sequential:
    """3x3 convolutions with stride 2, batch norm and ReLU, one for each width: the cheapest backbone there is.

    Its maps are small (4x4 at 32 pixels and three widths), so that the pooling `no_pool` can keep where things are.
    """
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels = width
    return nn.Sequential(*layers)


def _cifar_resnet(name: str, channels: int) -> nn.Sequential:
    depth, _, width = name.removeprefix("cifar_resnet").partition("x")
    if int(depth) < 8 or int(depth) % 6 != 2:
        raise UserError("no such depth", field="architecture", value=name, allowed="6 n + 2: 8, 14, 20, ...")
    network = CifarResNet(blocks=(int(depth) - 2) // 6, width=16 * int(width or 1), channels=channels)
    stages = [network.stage1, network.stage2, network.stage3]
    return nn.Sequential(network.conv0, network.bn0, nn.ReLU(inplace=True), *stages)


def _torchvision_names() -> set[str]:
    from torchvision import models

    return set(models.list_models(module=models))


def _torchvision_backbone(
    name: str, image_size: int, pretrained: bool
) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    from torchvision import models

    options = {"image_size": image_size} if name.startswith("vit_") else {}
    model = models.get_model(name, weights="IMAGENET1K_V1" if pretrained else None, **options)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if isinstance(model, models.VisionTransformer):
        module: nn.Module = _VisionTransformerMap(model)
    elif isinstance(model, models.SwinTransformer):
        module = nn.Sequential(model.features, model.norm, model.permute)
    elif isinstance(model, models.MaxVit):
        module = nn.Sequential(model.stem, *model.blocks)
    elif isinstance(model, models.MNASNet):
        module = model.layers
    elif hasattr(model, "features"):
        module = model.features
    else:
        module = _without_head(model)
    if isinstance(model, models.GoogLeNet | models.Inception3):
        mean = std = (0.5, 0.5, 0.5)
    return module, mean, std


def _without_head(model: nn.Module) -> nn.Sequential:
    """The children in order, up to the last one that is neither pooling nor classifier nor an auxiliary head."""
    children = [(name, child) for name, child in model.named_children() if "Aux" not in type(child).__name__]
    while children and re.search("pool|linear|dropout", type(children[-1][1]).__name__, re.IGNORECASE):
        children.pop()
    return nn.Sequential(OrderedDict(children))


class _VisionTransformerMap(nn.Module):
    """The patch tokens of a torchvision vision transformer as a map (n, c, tokens, 1)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        model: Any = self.model
        tokens = model._process_input(images)
        tokens = torch.cat([model.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        result: Tensor = model.encoder(tokens)[:, 1:].transpose(1, 2).unsqueeze(-1)
        return result


def _timm_backbone(
    name: str, image_size: int, channels: int, pretrained: bool
) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    import timm

    if not timm.is_model(name):
        guess = nearest(name, timm.list_models() + sorted(_torchvision_names()))
        hint = f"; did you mean {guess!r}?" if guess else ""
        raise UserError(f"neither torchvision nor timm has this network{hint}", field="architecture", value=name)
    options: dict[str, object] = {"in_chans": channels, "num_classes": 0, "global_pool": ""}
    default = timm.get_pretrained_cfg(name)
    if default is not None and default.fixed_input_size:
        options["img_size"] = image_size
    packaged = packaged_weights_file(name) if pretrained and channels == 3 else None
    if packaged is not None:
        model = timm.create_model(name)
        load_packaged_weights(model, packaged)
        model.reset_classifier(0, "")
    else:
        model = timm.create_model(name, pretrained=pretrained, **options)
    return _TimmFeatures(model), tuple(model.pretrained_cfg["mean"]), tuple(model.pretrained_cfg["std"])


@cache
def pretrained_pixel_statistics(architecture: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixels in [0, 1] that a backbone's published weights were trained with."""
    if architecture in _torchvision_names():
        inception = architecture in ("googlenet", "inception_v3")
        return ((0.5,) * 3, (0.5,) * 3) if inception else (IMAGENET_MEAN, IMAGENET_STD)
    import timm

    published = timm.get_pretrained_cfg(architecture.removeprefix("timm/"))
    return (IMAGENET_MEAN, IMAGENET_STD) if published is None else (tuple(published.mean), tuple(published.std))


class _TimmFeatures(nn.Module):
    """A timm model up to its last feature map, as (n, c, h, w); tokens become a map of width 1."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.channels_last = getattr(model, "output_fmt", None) == "NHWC"
        self.prefix_tokens = int(getattr(model, "num_prefix_tokens", 0) or 0)

    def forward(self, images: Tensor) -> Tensor:
        model: Any = self.model
        maps: Tensor = model.forward_features(images)
        if maps.ndim == 3:
            return maps[:, self.prefix_tokens :].transpose(1, 2).unsqueeze(-1)
        return maps.permute(0, 3, 1, 2) if self.channels_last else maps


def _dry_run(module: nn.Module, name: str, channels: int, image_size: int) -> tuple[int, int, int]:
    """The shape of the map of one image. Parts that the map does not depend on are removed from the module."""
    was_training = module.training
    try:
        maps = module.eval()(torch.zeros(1, channels, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        message = f"does not run on {image_size} x {image_size} images without its head ({error})"
        raise UserError(message, field="architecture", value=name) from error
    finally:
        module.train(was_training)
    if not isinstance(maps, Tensor) or maps.ndim != 4:
        raise UserError("has no feature map", field="architecture", value=name)
    body = module.model if isinstance(module, _TimmFeatures | _VisionTransformerMap) else module
    parameters = [p for p in module.parameters() if p.requires_grad]
    used = {
        id(parameter)
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(maps.sum(), parameters, allow_unused=True), strict=True
        )
        if gradient is not None
    }
    for child_name, child in list(body.named_children()):
        own = list(child.parameters())
        if own and not any(id(parameter) in used for parameter in own):
            setattr(body, child_name, nn.Identity())
    _, depth, height, width = maps.shape
    return depth, height, width
