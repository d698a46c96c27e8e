"""What a cascade costs: lifetime and cold-query image encoding, and multiply-accumulates of ViT encoders.

Hoenig, Ackermann and Chi, "Bi-Encoder Cascades for Efficient Image Search" (arXiv 2303.15595). All costs are those
of one image at each level, cheap level first, in any one unit (seconds, MACs). Text encoding and ranking are not
counted. Everything here is a pure function of such costs; nothing is measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subnetbench.harness.errors import UserError

NOT_APPLICABLE = "n/a"


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


def cold_query_speedup(
    baseline: Sequence[float], baseline_m: Sequence[int], costs: Sequence[float], m: Sequence[int]
) -> float | None:
    """How many times less a cold query encodes than with the baseline; None if either has a single level.

    A single level encodes nothing at query time, so there is nothing to compare.
    """
    base, cascade = cold_query_cost(baseline, baseline_m), cold_query_cost(costs, m)
    return base / cascade if base and cascade else None


def depth_speedup(costs: Sequence[float], m: Sequence[int]) -> float:
    """Cold-query speed-up of a cascade over its first and last level alone, with the same first width."""
    _check_widths(costs, m, "m")
    if len(costs) < 2:
        raise UserError("a single level encodes nothing at query time", field="costs", allowed="two levels or more")
    return m[0] * costs[-1] / cold_query_cost(costs, m)


def middle_width(m_0: int, cost_1: float, cost_2: float, factor: float = 2.0) -> float:
    """The width of the second of three levels that makes a cold query `factor` times cheaper: m_0 (1/factor - t_1/t_2).

    Not positive where the middle level is too expensive for that.
    """
    return m_0 * (1 / factor - cost_1 / cost_2)


def _check_widths(costs: Sequence[float], m: Sequence[int], field: str) -> None:
    if len(m) != len(costs) - 1:
        raise UserError(
            "one width is needed for each level but the last",
            field=field,
            value=list(m),
            allowed=f"{len(costs) - 1} numbers",
        )


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
    program. Where a per-query figure does not exist they say so, unless `published`: that program prints 0.000
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


def macs_per_head(tokens: int, width: int, head_width: int) -> int:
    """One attention head of one layer: its four projections, the scores and the mixing (Kwon et al. 2022)."""
    return 4 * tokens * width * head_width + 2 * tokens**2 * head_width


def macs_per_neuron(tokens: int, width: int) -> int:
    """One neuron of one MLP: its row of the first and its column of the second linear layer."""
    return 2 * tokens * width


def encoder_macs(tokens: int, width: int, head_width: int, heads: Sequence[int], neurons: Sequence[int]) -> int:
    """MACs of the layers of a ViT with these heads and neurons a layer, for `tokens` with the class token.

    Patch embedding, norms, softmax and the final projection are not counted.
    """
    return sum(heads) * macs_per_head(tokens, width, head_width) + sum(neurons) * macs_per_neuron(tokens, width)


def vit_macs(
    *,
    patches: int,
    patch_values: int,
    width: int,
    head_width: int,
    heads: Sequence[int],
    neurons: Sequence[int],
    embedding: int,
) -> int:
    """MACs of a whole ViT image encoder on `patches` patches of `patch_values` numbers each."""
    layers = encoder_macs(patches + 1, width, head_width, heads, neurons)
    return patches * patch_values * width + layers + width * embedding


def percentiles(seconds: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Median and 95th percentile of query latencies."""
    values = np.asarray(seconds, dtype=np.float64)
    if not len(values) or not math.isfinite(values.sum()):
        raise UserError("needs finite latencies of at least one query", field="seconds")
    median, p95 = np.percentile(values, [50, 95])
    return {"median": float(median), "p95": float(p95)}
