"""What runs start from, told apart by the fields in which it differs instead of by hashes.

Of cascades the levels differ, not the cascade's own config: `levels.0=head_sensitivity, levels.0.steps=7` says which row
it is, `levels=head_sensitivity-3f1c... > two_tower-77ab...` does not.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

from subnetbench.harness.leaderboard.configs import Config, Leaf, as_leaf, labels

PREFIX = "inputs."
"""How paths of what a run starts from begin in its config."""

_NOT_ITS_OWN = ("method", "seed", "inputs", "version")
_NAMES = ("method", "run", "sha256", "file")
_DIGITS = 10

_Item = Mapping[str, object]


def with_inputs_told_apart(own: Sequence[Config], specs: Sequence[str]) -> list[Config]:
    """Configs in which the fields of input runs that differ stand in place of the inputs' names.

    Args:
        own: Flat configs as `flatten` returns them.
        specs: The spec of a run of each, as JSON.

    Returns:
        The configs with leaves such as `levels.0.steps`; as they were where the specs tell apart less than the names of
        the inputs do, as in records without specs.
    """
    inputs = [_inputs(text) for text in specs]
    told: list[dict[str, Leaf]] = [{} for _ in own]
    _tell_apart(inputs, "", told)
    rest = [{path: leaf for path, leaf in config.items() if not path.startswith(PREFIX)} for config in own]
    changed: list[Config] = [{**plain, **extra} for plain, extra in zip(rest, told, strict=True)]
    return changed if len(set(labels(changed))) == len(set(labels(own))) else list(own)


def _inputs(text: str) -> dict[str, _Item]:
    """The inputs in a spec by role, those of lists by `role.number`."""
    try:
        return dict(_items(json.loads(text)))
    except (ValueError, TypeError, RecursionError):
        return {}


def _items(spec: object) -> Iterator[tuple[str, _Item]]:
    found = spec.get("inputs") if isinstance(spec, Mapping) else None
    for role, value in found.items() if isinstance(found, Mapping) else ():
        for number, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(item, Mapping):
                yield (role if number is None else f"{role}.{number}"), item


def _tell_apart(inputs: Sequence[Mapping[str, _Item]], where: str, told: list[dict[str, Leaf]]) -> None:
    """Add to `told` in what the inputs differ, role by role; fields are compared between inputs of one method alone."""
    for role in dict.fromkeys(role for each in inputs for role in each):
        path = f"{where}{role}"
        named = {at: _name(each[role]) for at, each in enumerate(inputs) if role in each}
        if len(named) < len(inputs) or len(set(named.values())) > 1:
            for at, name in named.items():
                told[at][path] = name
        for name in dict.fromkeys(named.values()):
            alike = [at for at, other in named.items() if other == name]
            items = [inputs[at][role] for at in alike]
            fields = [dict(_fields(item)) for item in items]
            apart = [
                field
                for field in dict.fromkeys(field for own in fields for field in own)
                if len({json.dumps(own.get(field)) if field in own else "" for own in fields}) > 1
            ]
            parts: list[dict[str, Leaf]] = [
                {_short(path, field, apart): own[field] for field in apart if field in own} for own in fields
            ]
            _tell_apart([dict(_items(item)) for item in items], f"{path}.", parts)
            for at, part in zip(alike, parts, strict=True):
                told[at].update(part)


def _short(path: str, field: str, apart: Sequence[str]) -> str:
    """`levels.0.steps` for `config.steps`; in full where the config, which comes first, has a field of that name too."""
    last = field.partition(".")[2] or field
    first = next(other for other in apart if (other.partition(".")[2] or other) == last)
    return f"{path}.{last if field == first else field}"


def _name(item: _Item) -> str:
    """The method of an input, the id of a finished run, or the digest of a file."""
    key = next((key for key in _NAMES if item.get(key)), "")
    return str(item[key])[: _DIGITS if key == "sha256" else None] if key else ""


def _fields(item: _Item) -> Iterator[tuple[str, Leaf]]:
    """The fields of an input's spec without its seed, those of mappings by dotted path; files by the start of their digest."""
    for key, value in item.items() if "method" in item else ():
        if key in _NOT_ITS_OWN:
            continue
        if isinstance(value, Mapping):
            yield from (
                (f"{key}.{inner}", str(leaf)[:_DIGITS] if key == "files" else as_leaf(leaf))
                for inner, leaf in value.items()
            )
        else:
            yield str(key), as_leaf(value)
