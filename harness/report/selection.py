"""Which rows and metrics a figure takes: costs, the Pareto front, matrices of networks; the page has the same rules."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

Row = dict[str, Any]

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)", re.ASCII)
_FIRST = ("macs_executed", "macs_nonzero", "sparsity", "parameters", "latency_ms")


def better_of(content: dict[str, Any], metric: str) -> int:
    """1 where more is better, -1 where less is. Of a cost that ranks nothing, less is; of sparsity, more is."""
    facts = content["metrics"][metric]
    return 1 if metric == "sparsity" else facts["better"] or (-1 if facts["cost"] else 1)


def costs_of(content: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    """The costs in which these rows differ, lifetime costs of cascades first."""

    def order(name: str) -> tuple[int, str]:
        return (-1 if "lifetime" in name else _FIRST.index(name) if name in _FIRST else len(_FIRST), name)

    found = []
    for name, facts in content["metrics"].items():
        means = {row["cells"][name]["mean"] for row in rows if name in row["cells"]}
        if facts["cost"] and len(means) > 1:
            found.append(name)
    return sorted(found, key=order)


def pareto_front(content: dict[str, Any], rows: Sequence[Row], cost: str, quality: str) -> list[Row]:
    """The rows that no other row beats in both, dearest last; of equal rows the first."""
    cheaper, better = better_of(content, cost), better_of(content, quality)

    def value(row: Row, metric: str, sign: int) -> float:
        return float(sign * row["cells"][metric]["mean"])

    ordered = sorted(rows, key=lambda row: (-value(row, cost, cheaper), -value(row, quality, better)))
    front: list[Row] = []
    for row in ordered:
        if not front or value(row, quality, better) > value(front[-1], quality, better):
            front.append(row)
    return front


def matrices_of(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each config that has at least two query and two gallery networks."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        if row["gallery_variant"]:
            groups.setdefault(row["group"], []).append(row)
    return [
        members
        for members in groups.values()
        if all(len({row[name] for row in members}) > 1 for name in ("variant", "gallery_variant"))
    ]


def in_order(names: Iterable[str]) -> list[str]:
    """Sorted, with the numbers in names as numbers: `level 2` before `level 10`."""

    def key(name: str) -> list[tuple[float, str]]:
        return [(float(part), "") if _NUMBER.fullmatch(part) else (-1.0, part) for part in _NUMBER.split(name)]

    return sorted(names, key=key)


def row_names(rows: Sequence[Row]) -> list[str]:
    """For each row, its method and only what tells it from the others."""
    parts = ("network", "variant", "gallery_variant", "config", "budget", "preset")
    varied = [part for part in parts if len({row[part] for row in rows}) > 1]
    return [", ".join(str(row[part]) for part in ("method", *varied) if row[part])[:44] for row in rows]
