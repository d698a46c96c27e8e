"""Tested claims as text, in the formats of the leaderboard."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.claim_tests import Part, Result
from subnetbench.harness.leaderboard.document import Column, Document, number, table_of
from subnetbench.harness.leaderboard.formats import plain_records, render_as

_COLUMNS = ("claim", "says", "line", "status", "reason", *Part.__dataclass_fields__)


def frame_of(results: Sequence[Result]) -> pd.DataFrame:
    """One line for each part of each claim; a claim without runs has one line. `status` is the claim's, `part_status` the part's."""
    lines = [
        {
            **{name: getattr(result, name) for name in ("claim", "says", "line", "status", "reason")},
            **({} if part is None else {("part_status" if k == "status" else k): v for k, v in vars(part).items()}),
        }
        for result in results
        for part in (result.parts or (None,))
    ]
    names = [*_COLUMNS[:5], "part_status", *(name for name in _COLUMNS[5:] if name != "status")]
    return pd.DataFrame(lines, columns=names)


def render(results: Sequence[Result], confidence: float, format: str = "terminal", width: int = 120) -> str:
    """The results in one of `formats.FORMATS`."""
    return render_as(
        format,
        table=lambda: _document(results, confidence),
        frame=lambda: frame_of(results),
        content=lambda: _content(results, confidence),
        width=width,
    )


def _content(results: Sequence[Result], confidence: float) -> dict[str, object]:
    claims = [asdict(result) | {"parts": plain_records(_parts(result))} for result in results]
    return {"summary": summary(results), "confidence": confidence, "claims": claims}


def _parts(result: Result) -> pd.DataFrame:
    return pd.DataFrame([vars(part) for part in result.parts], columns=list(Part.__dataclass_fields__))


def summary(results: Sequence[Result]) -> str:
    """How many claims hold, and what became of the others."""
    counts = Counter(result.status for result in results)
    others = ", ".join(f"{count:,} {status}" for status, count in counts.items() if status != "holds")
    many = "claim" if len(results) == 1 else "claims"
    hold = "holds" if counts["holds"] == 1 else "hold"
    return f"{len(results):,} {many}: {counts['holds']:,} {hold}{f', {others}' if others else ''}."


def _document(results: Sequence[Result], confidence: float) -> Document:
    lines = [(result, part) for result in results for part in (result.parts or (None,))]
    parts = [part for _, part in lines]
    half = [np.nan if part is None else part.high - part.measured for part in parts]
    columns = [
        Column.of("status", [result.status if part is None else part.status for result, part in lines]),
        Column.of("claim", [result.claim for result, _ in lines]),
        Column(
            "measured",
            ["–" if p is None else number(p.measured, np.nan_to_num(h)) for p, h in zip(parts, half, strict=True)],
            numeric=True,
        ),
        Column("threshold", ["–" if p is None else number(p.threshold) for p in parts], numeric=True),
        Column("seeds", ["–" if p is None else _seeds(p) for p in parts], numeric=True),
        Column(
            "power", ["–" if p is None or np.isnan(p.power) else f"{100 * p.power:.0f} %" for p in parts], numeric=True
        ),
        Column("detectable", ["–" if p is None else number(p.detectable) for p in parts], numeric=True),
    ]
    why = [f"  line {r.line}, {r.claim}: {r.status}{f', {r.reason}' if r.reason else ''}" for r in results if _noted(r)]
    tests = sum(len(result.parts) for result in results)
    note = (
        f"Measured is left - right, intervals are over {_over(parts)} at {100 * confidence:g} % for all {tests:,} tests together "
        "(Bonferroni). Power is for the claim's `effect`, or else for what was measured; `detectable` is the effect with 80 %."
    )
    return Document([table_of("Claims", columns)], [summary(results), *why, note])


def _over(parts: Sequence[Part | None]) -> str:
    kinds = Counter(part.interval for part in parts if part is not None)
    if kinds["joint"] and kinds["seeds"]:
        return f"seeds and test items (over seeds alone in {kinds['seeds']:,} tests without outcomes by item)"
    return "seeds and test items" if kinds["joint"] else "seeds"


def _noted(result: Result) -> bool:
    return result.status != "holds" or bool(result.reason)


def _seeds(part: Part) -> str:
    if part.pairs and part.pairs == part.seeds_left == part.seeds_right:
        return f"{part.pairs} pairs"
    paired = f" ({part.pairs} pairs)" if part.pairs else ""
    return f"{part.seeds_left} / {part.seeds_right}{paired}" if part.run_ids_right else str(part.seeds_left)
