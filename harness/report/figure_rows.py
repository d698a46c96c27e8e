"""Which rows and metrics a figure takes: costs, the Pareto front, matrices of networks; the page has the same rules."""

import math
import re
from collections.abc import Iterable, Sequence

from subnetbench.harness.report.types import ReportContent, Row

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)", re.ASCII)
_FIRST = ("macs_executed", "macs_nonzero", "sparsity", "parameters", "latency_ms")


def better_of(content: ReportContent, metric: str) -> int:
    """1 where more is better, -1 where less is. Of a cost that ranks nothing, less is; of sparsity, more is."""
    about = content.metrics[metric]
    return 1 if metric == "sparsity" else about.better or (-1 if about.cost else 1)


def mean_of(row: Row, metric: str) -> float:
    """The mean of a metric that the row has; NaN where it is not finite."""
    mean = row.cells[metric].mean
    return math.nan if mean is None else mean


def costs_of(content: ReportContent, rows: Sequence[Row]) -> list[str]:
    """The costs in which these rows differ, lifetime costs of cascades first."""

    def order(name: str) -> tuple[int, str]:
        return (-1 if "lifetime" in name else _FIRST.index(name) if name in _FIRST else len(_FIRST), name)

    found = []
    for name, about in content.metrics.items():
        means = {row.cells[name].mean for row in rows if name in row.cells} - {None}
        if about.cost and len(means) > 1:
            found.append(name)
    return sorted(found, key=order)


def pareto_front(content: ReportContent, rows: Sequence[Row], cost: str, quality: str) -> list[Row]:
    """The rows that no other row beats in both, the most expensive last; of equal rows the first."""
    cheaper, better = better_of(content, cost), better_of(content, quality)

    def value(row: Row, metric: str, sign: int) -> float:
        return sign * mean_of(row, metric)

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
        if row.gallery_variant:
            groups.setdefault(row.group, []).append(row)
    return [
        members
        for members in groups.values()
        if len({row.variant for row in members}) > 1 and len({row.gallery_variant for row in members}) > 1
    ]


def in_order(names: Iterable[str]) -> list[str]:
    """Sorted, with the numbers in names as numbers: `level 2` before `level 10`."""

    def key(name: str) -> list[tuple[float, str]]:
        return [(float(part), "") if _NUMBER.fullmatch(part) else (-1.0, part) for part in _NUMBER.split(name)]

    return sorted(names, key=key)


def row_names(rows: Sequence[Row]) -> list[str]:
    """For each row, its method and only what differs from the others."""
    parts = (
        "network",
        "variant",
        "gallery_variant",
        "input_of",
        "config",
        "budget",
        "preset",
        "code",
        "files",
        "numerics",
    )
    varied = [part for part in parts if len({getattr(row, part) for row in rows}) > 1]
    return [", ".join(getattr(row, part) for part in ("method", *varied) if getattr(row, part))[:44] for row in rows]
