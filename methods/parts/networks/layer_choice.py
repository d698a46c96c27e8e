"""Which parameters of a network are masked or pruned: chosen by layer type, by name, or by a function."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.conv import _ConvNd

from subnetbench.harness.method import UserError

MASKABLE: tuple[type[nn.Module], ...] = (_ConvNd, nn.Linear, nn.Bilinear, nn.MultiheadAttention)
"""Masked by default: all convolutions (transposed ones too), linear layers, attention projections."""

Predicate = Callable[[str, nn.Module, nn.Parameter], bool]
Where = type[nn.Module] | tuple[type[nn.Module], ...] | str | Sequence[str] | Predicate | None


@dataclass(frozen=True)
class ChosenParameter:
    """A parameter to be masked: its name in the network, and the number of inputs per output of its layer."""

    name: str
    parameter: nn.Parameter
    fan_in: int


def choose_parameters(module: nn.Module, where: Where = None, *, biases: bool = False) -> list[ChosenParameter]:
    """The parameters of `module` to be masked, in the order of `named_parameters`, tied ones once.

    `where` is one of
    - None: the weights of convolutions, linear layers and attention projections;
    - a layer type or a tuple of them;
    - shell-style patterns for names of layers or parameters, `["layer?.*", "!*.downsample.*"]`; those that begin
      with `!` exclude, and if all do, they exclude from the default;
    - a function of (parameter name, layer, parameter).

    Only a function can choose vectors (biases, norms). `biases=True` adds the biases of the chosen layers.

    Raises:
        UserError: When nothing is chosen, or when a pattern matches nothing.
    """
    wanted = _as_predicate(module, where)
    chosen: dict[nn.Parameter, str] = {}
    fan_ins: dict[nn.Parameter, int] = {}
    for name, owner, parameter in _parameters_with_owners(module):
        if parameter not in chosen and wanted(name, owner, parameter):
            chosen[parameter] = name
            fan_ins[parameter] = _fan_in(owner, parameter)
    if biases:
        for name, owner, parameter in _parameters_with_owners(module):
            weights = [p for p in owner.parameters(recurse=False) if p in chosen and p.ndim >= 2]
            if weights and parameter not in chosen and name.rpartition(".")[2] in ("bias", "in_proj_bias"):
                chosen[parameter] = name
                fan_ins[parameter] = fan_ins[weights[0]]
    if not chosen:
        raise UserError("chooses no parameter of this network", field="where", value=where)
    order = {parameter: position for position, parameter in enumerate(module.parameters())}
    return [
        ChosenParameter(chosen[parameter], parameter, fan_ins[parameter])
        for parameter in sorted(chosen, key=lambda p: order[p])
    ]


def is_depthwise(layer: nn.Module) -> bool:
    """Whether this is a convolution with a group of its own for each of several input channels."""
    return isinstance(layer, _ConvNd) and 1 < layer.groups == layer.in_channels


def _parameters_with_owners(module: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Every parameter under every name it has, so that a tied one can be chosen through any of its layers."""
    for prefix, owner in module.named_modules():
        for name, parameter in owner.named_parameters(prefix, recurse=False):
            yield name, owner, parameter


def _as_predicate(module: nn.Module, where: Where) -> Predicate:
    if where is None:
        return _by_type(MASKABLE)
    if isinstance(where, type):
        return _by_type((where,))
    if callable(where):
        return where
    entries = (where,) if isinstance(where, str) else tuple(where)
    kinds = tuple(entry for entry in entries if isinstance(entry, type))
    patterns = [entry for entry in entries if isinstance(entry, str)]
    if len(kinds) == len(entries):
        return _by_type(kinds)
    if len(patterns) == len(entries):
        return _by_name(module, patterns)
    raise UserError("cannot choose layers", field="where", value=where, allowed="types, or names, or a function")


def _by_type(kinds: tuple[type, ...]) -> Predicate:
    return lambda name, owner, parameter: isinstance(owner, kinds) and _is_weight(name, parameter)


def _by_name(module: nn.Module, patterns: Sequence[str]) -> Predicate:
    include = [pattern for pattern in patterns if not pattern.startswith("!")]
    exclude = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    weights = [name for name, _, parameter in _parameters_with_owners(module) if _is_weight(name, parameter)]
    for pattern in (*include, *exclude):
        if not any(_matches(name, pattern) for name in weights):
            raise UserError("matches no weight of this network", field="where", value=pattern, allowed=weights)

    def wanted(name: str, owner: nn.Module, parameter: nn.Parameter) -> bool:
        included = any(_matches(name, p) for p in include) if include else isinstance(owner, MASKABLE)
        return included and _is_weight(name, parameter) and not any(_matches(name, p) for p in exclude)

    return wanted


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern)


def _is_weight(name: str, parameter: nn.Parameter) -> bool:
    # Attention keeps learned key and value vectors with three dimensions under bias_k and bias_v.
    return parameter.ndim >= 2 and not name.rpartition(".")[2].startswith("bias")


def _fan_in(owner: nn.Module, parameter: nn.Parameter) -> int:
    if parameter.ndim < 2:
        parameter = next((p for p in owner.parameters(recurse=False) if p.ndim >= 2), parameter)
    return parameter[0].numel() if parameter.ndim >= 2 else parameter.numel()
