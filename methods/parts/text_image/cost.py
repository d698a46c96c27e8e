"""What a cascade costs: lifetime and cold-query image encoding, and multiply-accumulates of ViT encoders.

Hoenig, Ackermann and Chi, "Bi-Encoder Cascades for Efficient Image Search" (arXiv 2303.15595). All costs are those
of one image at each level, cheap level first, in any one unit (seconds, MACs). Text encoding and ranking are not
counted. Everything here is a pure function of such costs; nothing is measured.
"""

import math
from collections.abc import Sequence

import numpy as np

from subnetbench.harness.method import UserError


def level_fractions(fractions: float | Sequence[float], levels: int) -> tuple[float, ...]:
    """The share of all images that each level encodes in its life: (1, f_1, ..., f_{levels - 1}).

    One number is taken as f of every later level, the published upper bound; else one number a level is expected,
    the first being 1.
    """
    if isinstance(fractions, float | int):
        fractions = (1.0, *[float(fractions)] * (levels - 1))
    if len(fractions) != levels or fractions[0] != 1 or not all(0 <= f <= 1 for f in fractions):
        raise UserError(
            "one share of images is needed a level, the first being 1",
            field="fractions",
            value=tuple(fractions),
            allowed=f"{levels} numbers from 0 to 1",
        )
    return tuple(fractions)


def lifetime_cost(costs: Sequence[float], fractions: float | Sequence[float], images: int = 1) -> float:
    """images * sum_j f_j t_j: all image encoding in the life of a cascade, with `costs` t_j."""
    return images * sum(f * t for f, t in zip(level_fractions(fractions, len(costs)), costs, strict=True))


def lifetime_speedup(
    baseline: Sequence[float],
    costs: Sequence[float],
    fractions: float | Sequence[float],
    baseline_fractions: float | Sequence[float] | None = None,
) -> float:
    """How many times less a cascade encodes in its life than a baseline, itself a cascade.

    A cascade over its own last level gains t_1 / (t_0 + f t_1), below 1 / f, and only while t_0 / t_1 < 1 - f.
    The baseline's fractions default to the same f, which needs a single number.
    """
    if baseline_fractions is None:
        if not isinstance(fractions, float | int) and len(baseline) > 1:
            raise UserError("must be given for a baseline of several levels", field="baseline_fractions")
        baseline_fractions = fractions if isinstance(fractions, float | int) else 1.0
    return lifetime_cost(baseline, baseline_fractions) / lifetime_cost(costs, fractions)


def cold_query_cost(costs: Sequence[float], m: Sequence[int]) -> float:
    """Most that a query can have to encode, when no later level has seen any image: sum_{j>0} m_{j-1} t_j."""
    _check_widths(costs, m, "m")
    return sum(width * cost for width, cost in zip(m, costs[1:], strict=True))


def depth_speedup(costs: Sequence[float], m: Sequence[int]) -> float:
    """Cold-query speed-up of a cascade over its first and last level alone, with the same first width."""
    _check_widths(costs, m, "m")
    if len(costs) < 2:
        raise UserError("a single level encodes nothing at query time", field="costs", allowed="two levels or more")
    return m[0] * costs[-1] / cold_query_cost(costs, m)


def _check_widths(costs: Sequence[float], m: Sequence[int], field: str) -> None:
    if len(m) != len(costs) - 1:
        raise UserError(
            "one width is needed for each level but the last",
            field=field,
            value=list(m),
            allowed=f"{len(costs) - 1} numbers",
        )


def percentiles(seconds: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Median and 95th percentile of query latencies."""
    values = np.asarray(seconds, dtype=np.float64)
    if not len(values) or not math.isfinite(values.sum()):
        raise UserError("needs finite latencies of at least one query", field="seconds")
    median, p95 = np.percentile(values, [50, 95])
    return {"median": float(median), "p95": float(p95)}
