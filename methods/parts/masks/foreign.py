"""Names of masked classifiers in the files of the published programs.

ASLP (N0ciple/ASLP): the scores of `conv1.weight` are `conv1.mask`, its factor `conv1.scaling_param`. Edge-popup
(allenai/hidden-networks): layers by their places in `convs` and `linear`, these as 1x1 convolutions, without biases;
scores are `scores`. Continuous Sparsification: scores are `mask_weight`; `init_weight` is what a ticket is rewound to.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from subnetbench.harness.method import UserError, UserValues, Weights, fill
from subnetbench.methods.parts.masks.masked_model import MaskedModel

_SCORES = ("mask", "scores", "mask_weight")
_REWIND = "init_weight"
_FACTOR = "scaling_param"
_PLACE = re.compile(r"(convs|linear)\.(\d+)\.(\w+)")


def fill_masked(masked: MaskedModel, weights: Weights, *, with_scores: bool) -> None:
    """Put a published file, or a plain state dictionary of the network, into a masked network.

    Args:
        masked: The network.
        weights: The file.
        with_scores: Whether the file must have scores; else they may keep their first values.

    Raises:
        UserError: It does not fit; see `fill`.
    """
    plain = _by_layers(weights.tensors)
    tensors: dict[str, Tensor] = {}
    factors: dict[str, Tensor] = {}
    for name, value in plain.items():
        owner, _, last = name.rpartition(".")
        if last in _SCORES:
            tensors[f"scores.{owner}.weight"] = value
        elif last == _FACTOR:
            factors[f"{owner}.weight"] = value
        elif last != _REWIND:
            tensors[f"base.{name}"] = value
    tensors |= _scale(masked, factors, weights)
    scores = {f"scores.{name}" for name in masked.names}
    fresh = {"mask.temperature"} | (set() if with_scores or scores & set(tensors) else {*scores, "mask.scale"})
    fill(masked, weights.renamed(tensors), fresh=fresh)


def described_by(weights: Weights) -> UserValues:
    """Fields of a mask method's config that a published file decides."""
    plain = _by_layers(weights.tensors)
    found: dict[str, object] = {}
    convolutions = sum(re.fullmatch(r"conv[1-9]\.weight", name) is not None for name in plain)
    if "fc1.weight" in plain and convolutions in (2, 4, 6):
        found["network"] = f"conv{convolutions}"
    if {"conv0.weight", "stage3.block3.conv_b.weight", "classifier.weight"} <= set(plain):
        found["network"] = "resnet20"
    return found


def of_hidden_networks(weights: Weights) -> bool:
    """Whether a file is of the edge-popup authors' own program, whose rule counts weights in another way."""
    return any(_PLACE.fullmatch(name) for name in weights.tensors)


def has_factors(weights: Weights) -> bool:
    """Whether layers of an ASLP file have learned a factor; without weight rescale they keep theirs at 1."""
    factors = [value for name, value in weights.tensors.items() if name.rpartition(".")[2] == _FACTOR]
    return any(bool((value != 1).any()) for value in factors)


def _by_layers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of layers in place of their places in `convs` and `linear`, linear layers as such, with biases of 0."""
    places = {match: value for name, value in tensors.items() if (match := _PLACE.fullmatch(name))}
    if not places:
        return dict(tensors)
    numbers = {part: sorted({int(match[2]) for match in places if match[1] == part}) for part in ("convs", "linear")}
    found = {name: value for name, value in tensors.items() if not _PLACE.fullmatch(name)}
    for match, value in places.items():
        part, place, last = match.groups()
        layer = f"{'conv' if part == 'convs' else 'fc'}{numbers[part].index(int(place)) + 1}"
        found[f"{layer}.{last}"] = value.flatten(1) if part == "linear" and value.ndim == 4 else value
        if last == "weight":
            found.setdefault(f"{layer}.bias", torch.zeros(len(value)))
    return found


def _scale(masked: MaskedModel, factors: Mapping[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    """The factors of all masked layers as the mask keeps them."""
    if "mask.scale" in masked.state_dict():
        missing = [name for name in masked.names if name not in factors]
        if not factors:
            return {}
        if missing:
            raise UserError(f"lacks the factors of {', '.join(missing)}", field=str(weights.path))
        return {"mask.scale": torch.stack([factors[name].reshape(()) for name in masked.names])}
    if any(bool((value != 1).any()) for value in factors.values()):
        raise UserError("has learned a factor a layer", field="weight_rescale", value=False, allowed="true")
    return {}
