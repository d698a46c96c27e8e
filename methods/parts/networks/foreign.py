"""Names of embedding networks in the files of published programs and libraries.

RAML (pavelsuma/raml): `backbone` numbers the children of torchvision's network, `whiten` is the whitening layer, `meta`
describes both. PrunNet and SwitchNet (Bunny-Black/PrunNet): torchvision's names but for shortcuts, which are one
convolution more; `projector.last_layer`, `projection_cls.last_layer`; scores `w_m` and `b_m`.
"""

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

from torch import Tensor, nn

from subnetbench.harness.method import UserError, UserValues, Weights, fill
from subnetbench.methods.parts.networks.embedding import EmbeddingNetwork
from subnetbench.methods.parts.networks.feature_maps import pretrained_pixel_statistics

_log = logging.getLogger(__name__)

_HEADS = re.compile(r"(fc|head|heads|conv_head|norm_head|classifier|aux\w*|AuxLogits|head_dist|fc_norm)\.")
_PARTS = ("backbone.", "pool.", "whitening.")
_COMPATIBLE = (
    ("projector.projection.", "projector.hidden."),
    ("projector.last_layer.", "projector.linear."),
    ("projector.last_bn.", "projector.norm."),
    ("projection_cls.last_layer.", "classifier."),
)
_OF_BLOCK = re.compile(r"(layer\d+\.\d+)\.(conv|bn)(\d+)\.(.+)")


def raml_fields(weights: Weights) -> UserValues:
    """Config fields in the dictionary `meta` of RAML's published networks; none where a file has no such dictionary."""
    meta = weights.settings.get("meta")
    if not isinstance(meta, Mapping):
        return {}
    whitening = cast(Any, meta.get("whitening")) or None
    named = {"network": meta.get("architecture"), "pool": meta.get("pooling"), "dim": whitening}
    lacking = [key for key in ("architecture", "pooling", "mean", "std") if meta.get(key) is None]
    if lacking:
        raise UserError(f"its dictionary `meta` lacks {', '.join(lacking)}", field=str(weights.path))
    pixels = {f"pixel_{key}": tuple(map(float, cast(Any, meta[key]))) for key in ("mean", "std")}
    return {**named, **pixels}


def library_pixels(network: str) -> UserValues:
    """What pixels the published weights of a torchvision or timm network expect."""
    mean, std = pretrained_pixel_statistics(network)
    return {"pixel_mean": mean, "pixel_std": std}


def fill_embedding(network: EmbeddingNetwork, weights: Weights, *, whole: bool) -> None:
    """Put a file into an embedding network: of RAML, of this program's exports, or of a library's backbone.

    Args:
        network: The network.
        weights: The file. Of a library's network the classifier is left out, and said.
        whole: Whether every tensor must be in the file; else pooling and whitening may keep their first values.

    Raises:
        UserError: It does not fit; see `fill`.
    """
    given = weights.tensors
    own = network.state_dict()
    if any(name.startswith("backbone.") for name in given):
        backbone = {name.removeprefix("backbone."): value for name, value in given.items() if "backbone." in name[:9]}
        rest = {
            re.sub(r"^whiten\.", "whitening.", name): value
            for name, value in given.items()
            if not name.startswith("backbone.")
        }
    else:
        backbone, rest = dict(given), {}
    renamed = {f"backbone.{_in_backbone(name, network.backbone, own)}": value for name, value in backbone.items()}
    heads = [
        name
        for name in renamed
        if name not in own and _HEADS.match(name.removeprefix("backbone.model.").removeprefix("backbone."))
    ]
    if heads:
        _log.info("%s: left out the classifier (%s)", weights.path.name, ", ".join(heads))
    tensors = {**{name: value for name, value in renamed.items() if name not in heads}, **rest}
    fresh = () if whole else [name for name in own if name.startswith(("pool.", "whitening."))]
    fill(network, weights.renamed(tensors), fresh=fresh)


def _in_backbone(name: str, backbone: nn.Module, own: Collection[str]) -> str:
    """A name of a library's network, or of its children by number, in the backbone made of that network."""
    return next((each for each in _candidates(name, backbone) if f"backbone.{each}" in own), name)


def _candidates(name: str, backbone: nn.Module) -> Iterator[str]:
    """What a tensor may be called once the network around it has lost its head (see `feature_map_backbone`)."""
    first, _, rest = name.partition(".")
    yield name
    yield f"model.{name}"
    children = [child for child, _ in backbone.named_children()]
    if first.isdigit() and int(first) < len(children):
        yield f"{children[int(first)]}.{rest}"
    if first in ("features", "layers"):
        yield rest
    # Swin transformers and MaxViT become sequences of their parts.
    places = {"features": "0", "stem": "0", "norm": "1"}
    if first in places:
        yield f"{places[first]}.{rest}"
    number, _, inner = rest.partition(".")
    if first == "blocks" and number.isdigit():
        yield f"{int(number) + 1}.{inner}"


def compatible_names(tensors: Mapping[str, Tensor], own: Collection[str]) -> dict[str, Tensor]:
    """Tensors of PrunNet's and SwitchNet's files under the names of a `ClassifiedEmbedding` whose names are `own`."""
    return {_compatible_name(name, own): value for name, value in tensors.items()}


def _compatible_name(name: str, own: Collection[str]) -> str:
    for theirs, ours in _COMPATIBLE:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    found = _OF_BLOCK.fullmatch(name)
    if found:
        block, kind, number, rest = found.groups()
        # Of a block with n convolutions the n + 1st is the shortcut's.
        if not any(each.startswith(f"backbone.{block}.{kind}{number}.") for each in own):
            return f"backbone.{block}.downsample.{0 if kind == 'conv' else 1}.{rest}"
    return f"backbone.{name}"


def compatible_fields(weights: Weights, family: str) -> UserValues:
    """Config fields that a file of PrunNet or SwitchNet decides; `family` is the prefix of its ResNets' names."""
    tensors = weights.tensors
    last = tensors.get("projector.last_layer.weight")
    shortcut = 4 if family == "prunnet" else 3
    bottleneck = f"layer1.0.conv{shortcut}.weight" in tensors
    found: dict[str, object] = {}
    if "layer4.1.conv2.weight" in tensors:
        found["network"] = f"{family}_resnet{50 if bottleneck else 18}"
    if last is not None:
        found["dim"] = len(last)
        hidden = [name for name, value in tensors.items() if "projector.projection." in name and value.ndim == 2]
        found["projector_layers"] = len(hidden)
    return found
