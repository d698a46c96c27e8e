"""Classifiers by name, sized to a data set: the small networks of the papers, and all of timm and torchvision."""

import torch
from torch import nn

from subnetbench.harness.method import DataMetadata, UserError, nearest
from subnetbench.methods.parts.networks.memory_format import prefer_channels_last
from subnetbench.methods.parts.networks.modes import in_evaluation_mode
from subnetbench.methods.parts.networks.small import SMALL_NETWORKS, small_network

_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


def classifier(name: str, data: DataMetadata, *, size: int, pretrained: bool = False) -> nn.Module:
    """A network with logits (n, classes) for images (n, channels, size, size), with fresh weights.

    Args:
        name: One of `SMALL_NETWORKS`, else a timm model, else a torchvision classifier; `torchvision/resnet18` asks for
            that library's.
        data: Channels and classes.
        size: Side of the images in pixels.
        pretrained: Take the published weights of timm or torchvision.

    Raises:
        UserError: With the nearest name when there is none, and for a network that cannot be built for such images.
    """
    if name in SMALL_NETWORKS:
        if pretrained:
            raise UserError("there are no published weights of this network", field="pretrained", value=name)
        return small_network(name, channels=data.channels, size=size, classes=data.num_classes)
    library, _, model = name.rpartition("/")
    if library not in ("", "timm", "torchvision"):
        raise UserError("no such library", field="network", value=library, allowed="timm, torchvision")
    if library != "torchvision":
        import timm

        if timm.is_model(model):
            return _checked(_timm(model, data, size, pretrained), name, data, size)
    if library != "timm":
        import torchvision

        if model in torchvision.models.list_models(module=torchvision.models):
            return _checked(_torchvision(model, data, pretrained), name, data, size)
    raise _no_such_network(name)


def _timm(model: str, data: DataMetadata, size: int, pretrained: bool) -> nn.Module:
    import timm

    options = {"num_classes": data.num_classes, "in_chans": data.channels}
    published = timm.get_pretrained_cfg(model)
    if published is not None and published.fixed_input_size:
        options["img_size"] = size
    network: nn.Module = timm.create_model(model, pretrained=pretrained, **options)
    return network


@torch.no_grad()
def _checked(network: nn.Module, name: str, data: DataMetadata, size: int) -> nn.Module:
    """The network as it is, once it has classified an empty image."""
    try:
        with in_evaluation_mode(network):
            network(torch.zeros(1, data.channels, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        fault = f"cannot classify images of {size} pixels: {str(error) or type(error).__name__}"
        raise UserError(fault, field="network", value=name) from None
    return prefer_channels_last(network)


def _torchvision(model: str, data: DataMetadata, pretrained: bool) -> nn.Module:
    import torchvision

    if data.channels != 3:
        raise UserError("torchvision's networks take images of 3 channels", field="network", value=model)
    options: dict[str, object] = {"weights": "DEFAULT"} if pretrained else {"num_classes": data.num_classes}
    if model in _WITH_AUXILIARY_HEADS:
        # In training these return the outputs of their auxiliary heads too, for a loss of their own.
        options["aux_logits"] = False
    network: nn.Module = torchvision.models.get_model(model, **options)
    if not pretrained:
        return network
    name, last = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
    path, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(path), attribute, nn.Linear(last.in_features, data.num_classes))
    return network


def _no_such_network(name: str) -> UserError:
    import timm

    guess = nearest(name, [*SMALL_NETWORKS, *timm.list_models()])
    hint = f"; did you mean {guess!r}?" if guess else ""
    known = f"{', '.join(SMALL_NETWORKS)}, any timm or torchvision classifier"
    return UserError(f"there is no such network{hint}", field="network", value=name, allowed=known)
