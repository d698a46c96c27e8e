"""Configs as flat mappings, and where the configs of one method differ."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

Leaf = bool | int | float | str | None
Config = Mapping[str, Leaf]
"""A flat config: leaves by dotted path, such as `config.lr`; a list is one leaf, as JSON."""

# These have columns of their own.
_ELSEWHERE = frozenset({"version", "method", "dataset", "task", "config.preset", "config.network"})


def flatten(config_json: str) -> dict[str, Leaf]:
    """The leaves of a config by dotted path (`config.lr`); lists are leaves. Empty if the text is not JSON.

    What a run starts from is named in short: `inputs.levels` is `clip_student-59b3... > two_tower-0c1f...`.
    """
    leaves: dict[str, Leaf] = {}
    try:
        # An integer too long for a float becomes infinite: expressions compare floats.
        config = json.loads(config_json, parse_int=lambda text: int(text) if len(text) < 300 else float(text))
        _collect(config, "", leaves)
    except (ValueError, RecursionError):
        return {}
    return leaves


def _collect(value: object, path: str, leaves: dict[str, Leaf]) -> None:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            _collect(inner, f"{path}.{key}" if path else str(key), leaves)
    elif path.startswith("inputs.") and isinstance(value, list):
        leaves[path] = " > ".join(
            str(next(iter(item.values()), "")) if isinstance(item, dict) else str(item) for item in value
        )
    elif path:
        leaves[path] = as_leaf(value)


def as_leaf(value: object) -> Leaf:
    """A value of JSON as a leaf: lists and mappings as JSON text."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


def differing(configs: Iterable[Config]) -> list[str]:
    """The paths whose values are not the same in all configs, in the order in which they appear."""
    seen = list(configs)
    paths = dict.fromkeys(path for config in seen for path in config if path not in _ELSEWHERE)
    missing = object()
    return [path for path in paths if len({_hashable(config.get(path, missing)) for config in seen}) > 1]


def labels(configs: Sequence[Config]) -> list[str]:
    """For each config where it differs from the others, as `sparsity=0.7, lr=0.1`, without the leading `config.`.

    Tuned numbers have seventeen digits. Four are shown, and all where four would make different configs look alike.
    """
    paths = differing(configs)
    exact = [_label(config, paths, str) for config in configs]
    short = [_label(config, paths, _short) for config in configs]
    return short if len(set(short)) == len(set(exact)) else exact


def _label(config: Config, paths: Iterable[str], text: Callable[[Leaf], str]) -> str:
    return ", ".join(f"{path.removeprefix('config.')}={text(config[path])}" for path in paths if path in config)


def _short(value: Leaf) -> str:
    return f"{value:.4g}" if isinstance(value, float) and len(str(value)) > 6 else str(value)


def _hashable(value: object) -> tuple[type, object]:
    return (type(value), value)
