"""A comparison of two leaderboards as text, in the formats of the leaderboard itself."""

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.compare import Differences
from subnetbench.harness.leaderboard.document import Column, Document, Table, number, table_of
from subnetbench.harness.leaderboard.formats import plain_records, render_as
from subnetbench.harness.leaderboard.losses import COUNTS
from subnetbench.harness.leaderboard.matching import NAME
from subnetbench.harness.leaderboard.row_tests import VARYING

_ORDER = ("worse beyond margin", "worse", "better", "changed", "undecidable", "no difference found", "identical")
_HEADERS = {"gallery_variant": "gallery"}
_COUNT_HEADERS = {"seeds_a": "finished_a", "seeds_b": "finished_b"}
_WITHOUT_FINISHED = "no finished run"


def render(differences: Differences, format: str = "terminal", width: int = 120) -> str:
    """The differences in one of `formats.FORMATS`; what is missing comes first, then rows that got worse.

    In CSV, rows without a counterpart are lines whose verdict is `missing in b` or `only in b`, and configs of which
    no run finished are lines whose verdict is `no finished run in a` (or b). JSON has the frames of `Differences`.
    """
    return render_as(
        format,
        table=lambda: _document(differences),
        frame=lambda: _all_lines(differences),
        content=lambda: _content(differences),
        width=width,
    )


def _document(differences: Differences) -> Document:
    tables = [_missing(differences)] if len(differences.missing) else []
    if len(differences.rows):
        tables.append(_changes(differences))
    if len(differences.only_b):
        tables.append(_coverage("Only in b", differences.only_b))
    if len(differences.failed):
        tables.append(_failures(differences.failed))
    return Document(tables, [_summary(differences), *differences.notes])


def _summary(differences: Differences) -> str:
    verdicts = differences.rows["verdict"].value_counts()
    counts = [f"{verdicts[name]:,} {name}" for name in _ORDER if name in verdicts.index]
    text = (
        f"{len(differences.rows):,} compared ({', '.join(counts) or 'nothing'}); only in a: {len(differences.only_a):,} "
        f"rows, only in b: {len(differences.only_b):,} rows."
    )
    if len(differences.missing):
        fails = "missing" in differences.fail_on and not differences.allow_missing
        outcome = "this fails the comparison" if fails else "allowed"
        text += f" Missing in b, or with lost seeds: {len(differences.missing):,} ({outcome})."
    return text


def _sorted(rows: pd.DataFrame) -> pd.DataFrame:
    rank = rows["verdict"].map({name: at for at, name in enumerate(_ORDER)})
    return rows.iloc[np.lexsort([rows["p_corrected"].fillna(2.0), rank])].reset_index(drop=True)


def _all_lines(differences: Differences) -> pd.DataFrame:
    """All lines for CSV; `reason` says why a row is not compared, or which seeds are lost."""
    rows = _sorted(differences.rows)
    keys = [name for name in differences.missing if name not in (*COUNTS, "reason")]
    reasons = differences.missing.drop_duplicates(keys)
    lines = rows.merge(reasons[[*keys, "reason"]], "left", on=keys)
    compared = rows[keys].assign(compared=True).drop_duplicates(keys)
    gone = reasons.merge(compared, "left", on=keys)
    parts = [gone[gone["compared"].isna()].drop(columns="compared").assign(verdict="missing in b"), lines]
    parts.append(differences.only_b.reindex(columns=[*NAME, "config", *COUNTS, "reason"]).assign(verdict="only in b"))
    for side in () if differences.of_sets else ("a", "b"):
        failed = differences.failed[(differences.failed["side"] == side) & (differences.failed["seeds"] == 0)]
        counts = failed.rename(columns={"seeds": f"seeds_{side}", "failed": f"failed_{side}"}).drop(columns="side")
        parts.append(counts.assign(verdict=f"{_WITHOUT_FINISHED} in {side}"))
    found = pd.concat([part for part in parts if len(part)] or [lines], ignore_index=True)
    found = found.reindex(columns=list(lines.columns))
    whole = dict.fromkeys((*COUNTS, "pairs", "lost"), "Int64")
    found = found.astype(whole)
    for name in lines.select_dtypes(exclude="number"):
        found[name] = found[name].astype(object).fillna("")
    return found


def _names(rows: pd.DataFrame) -> list[Column]:
    shown = [name for name in (*NAME, "config") if name in ("dataset", "method") or rows[name].nunique() > 1]
    return [Column.of(_HEADERS.get(name, name), rows[name]) for name in shown]


def _names_of_both(rows: pd.DataFrame, varying: tuple[str, ...] = VARYING) -> list[Column]:
    """The names that both rows have in common, and those of each in which the rows differ."""
    known = [name for name in varying if f"{name}_b" in rows and name in rows]
    seen = {name: {*rows[name], *rows[f"{name}_b"]} - {""} for name in known}
    shown = [name for name in known if name == "method" or len(seen[name]) > 1]
    columns = [
        Column.of(name, rows[name])
        for name in ("task", "dataset", "split")
        if name == "dataset" or rows[name].nunique() > 1
    ]
    for side, suffix in (("a", ""), ("b", "_b")):
        labels = [
            ", ".join(str(value) for value in line if str(value))
            for line in rows[[n + suffix for n in shown]].to_numpy()
        ]
        columns.append(Column(f"row of {side}", labels))
    return columns


def _changes(differences: Differences) -> Table:
    rows = _sorted(differences.rows)
    half = (rows["high"] - rows["low"]) / 2
    signed = [f"{'+' if d > 0 else ''}{number(d, h)}" for d, h in zip(rows["difference"], half, strict=True)]
    corrected = ["–" if np.isnan(p) else f"{p:.3g}" for p in rows["p_corrected"]]
    means = ["a", "b"]
    if any((rows[name] != rows[f"{name}_all_seeds"]).any() for name in ("a", "b")):
        means += ["a_all_seeds", "b_all_seeds"]
    uneven = (rows["seeds_a"] != rows["pairs"]).any() or (rows["seeds_b"] != rows["pairs"]).any()
    failed = rows[["failed_a", "failed_b", "lost"]].to_numpy().any()
    counts = [
        "pairs",
        *(["seeds_a", "seeds_b"] if uneven else []),
        *(["failed_a", "failed_b", "lost"] if failed else []),
    ]
    columns = [
        Column.of("verdict", rows["verdict"]),
        *(_names_of_both(rows) if differences.of_sets else _names(rows)),
        Column.of("metric", rows["metric"]),
        *(Column(name, [number(value) for value in rows[name]], numeric=True) for name in means),
        Column("difference", signed, numeric=True),
        Column("p_corrected", corrected, numeric=True),
        *(Column.of(_COUNT_HEADERS.get(name, name), rows[name], numeric=True) for name in counts),
        Column("detectable", [number(value) for value in rows["detectable"]], numeric=True),
    ]
    return table_of("Differences", columns)


def _missing(differences: Differences) -> Table:
    rows = differences.missing
    columns = [
        *(_names_of_both(rows) if differences.of_sets else _names(rows)),
        Column.of("metric", rows["metric"].replace("", "all")),
        *_counts(rows),
        Column.of("reason", rows["reason"]),
    ]
    return table_of("Missing in b, or with lost seeds", columns)


def _coverage(title: str, rows: pd.DataFrame) -> Table:
    return table_of(title, [*_names(rows), *_counts(rows), Column.of("reason", rows["reason"])])


def _counts(rows: pd.DataFrame) -> list[Column]:
    return [Column.of(_COUNT_HEADERS.get(name, name), rows[name], numeric=True) for name in COUNTS]


def _failures(rows: pd.DataFrame) -> Table:
    names = [Column.of(name, rows[name]) for name in rows.columns if name not in ("seeds", "failed")]
    numbers = [
        Column.of(header, rows[name], numeric=True) for header, name in (("finished", "seeds"), ("failed", "failed"))
    ]
    return table_of("Failed runs", [*names, *numbers])


def _content(differences: Differences) -> dict[str, object]:
    return {
        "summary": _summary(differences),
        "exit_status": differences.exit_status,
        "fail_on": list(differences.fail_on),
        "missing": plain_records(differences.missing),
        "rows": plain_records(_sorted(differences.rows)),
        "only_a": plain_records(differences.only_a),
        "only_b": plain_records(differences.only_b),
        "failed": plain_records(differences.failed),
        "notes": differences.notes,
    }
