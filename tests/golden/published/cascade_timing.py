"""The timing report of the published cascades, and speed-ups over cascades other than the last level alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subnetbench.methods.parts.text_image.cost import cold_query_cost, lifetime_speedup

NOT_APPLICABLE = "n/a"


def cold_query_speedup(
    baseline: Sequence[float], baseline_m: Sequence[int], costs: Sequence[float], m: Sequence[int]
) -> float | None:
    """How many times less a cold query encodes than with the baseline; None if either has a single level.

    A single level encodes nothing at query time, so there is nothing to compare.
    """
    base, cascade = cold_query_cost(baseline, baseline_m), cold_query_cost(costs, m)
    return base / cascade if base and cascade else None


def middle_width(m_0: int, cost_1: float, cost_2: float, factor: float = 2.0) -> float:
    """The width of the second of three levels that makes a cold query `factor` times cheaper: m_0 (1/factor - t_1/t_2).

    Not positive where the middle level is too expensive for that.
    """
    return m_0 * (1 / factor - cost_1 / cost_2)


@dataclass(frozen=True)
class TimingReport:
    """Speed-ups of a cascade over a baseline from measured times, one a repetition, and the lines to print.

    `query` is None where there is nothing to compare (see `cold_query_speedup`).
    """

    lifetime: tuple[float, ...]
    query: tuple[float, ...] | None
    lines: tuple[str, ...]


def timing_report(
    baseline_seconds: Sequence[Sequence[float]],
    cascade_seconds: Sequence[Sequence[float]],
    images: int,
    f: float,
    *,
    baseline_m: Sequence[int] = (),
    m: Sequence[int] = (),
    published: bool = False,
) -> TimingReport:
    """Compare times (levels, repetitions) of encoding `images` images with each level.

    Repetition r of the baseline is divided by repetition r of the cascade. The lines are those of the published
    program. Where a per-query speed-up does not exist they say so, unless `published`: that program prints 0.000
    for a baseline of one level, and fails with ZeroDivisionError when both have one.
    """
    base, cascade = np.asarray(baseline_seconds) / images, np.asarray(cascade_seconds) / images
    lines = [
        f"{name}[{level}] img encoding time mean(std), min, max: {_spread(row)}"
        for name, rows in (("base model", base), ("cascaded model", cascade))
        for level, row in enumerate(rows)
    ]
    lifetime = tuple(lifetime_speedup(b, c, f) for b, c in zip(base.T, cascade.T, strict=True))
    pairs = [(cold_query_cost(b, baseline_m), cold_query_cost(c, m)) for b, c in zip(base.T, cascade.T, strict=True)]
    if published:
        query = tuple(float(b) / float(c) for b, c in pairs)
    else:
        query = tuple(b / c for b, c in pairs if b and c)
    lines += [f"Speedup:{_mean(lifetime)}", f"Per-query speedup:{_mean(query) if query else NOT_APPLICABLE}"]
    return TimingReport(lifetime, query or None, tuple(lines))


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():7.3f}({values.std():7.3f}), {values.min():7.3f}, {values.max():7.3f}"


def _mean(values: Sequence[float]) -> str:
    """Mean and population standard deviation."""
    return f"{np.mean(values):.3f}({np.std(values):.3f})"
