"""Entrants over several data sets as text, in the formats of the leaderboard itself."""

import numpy as np
import pandas as pd

from subnetbench.harness.leaderboard.document import Column, Document, Table, number, table_of
from subnetbench.harness.leaderboard.formats import plain_records, render_as
from subnetbench.harness.leaderboard.overall import MOST_PAIRS, SCORES, Overall

_RUN_LEVELS = (0.0, 0.25, 0.5, 0.75)
_RATIOS = (1.0, 1.25, 1.5, 2.0, 4.0)


def render(found: Overall, format: str = "terminal", width: int = 120) -> str:
    """The entrants in one of `formats.FORMATS`; CSV is `tidy`, JSON has the frames of `Overall`."""
    return render_as(
        format, table=lambda: _document(found), frame=lambda: tidy(found), content=lambda: _content(found), width=width
    )


def tidy(found: Overall) -> pd.DataFrame:
    """One line for each number: `statistic`, `entrant`, `dataset`, `against`, `level`, `value`, `low`, `high`; a name is
    empty, and a number NaN, where it does not apply."""
    parts = []
    for name in ("mean_rank", "borda", "borda_rank", *SCORES, "profile_score"):
        bounds = {side: found.summary.get(f"{name}_{side}", np.nan) for side in ("low", "high")}
        line = {"statistic": name, "entrant": found.summary["entrant"], "value": found.summary[name], **bounds}
        parts.append(pd.DataFrame(line))
    for name, low, high in (("value", None, None), ("normalised", None, None), ("rank", "rank_best", "rank_worst")):
        part = found.scores[["entrant", "dataset"]].assign(statistic=name, value=found.scores[name])
        if low is not None and high is not None:
            part = part.assign(low=found.scores[low], high=found.scores[high])
        parts.append(part)
    improved = found.improvement.rename(columns={"probability": "value"})
    parts.append(improved.assign(statistic="probability_of_improvement"))
    profiles = found.profiles.rename(columns={"share": "value"})
    parts.append(profiles.assign(statistic=[f"{kind}_profile" for kind in profiles["kind"]]).drop(columns="kind"))
    names = ["statistic", "entrant", "dataset", "against", "level", "value", "low", "high"]
    lines = pd.concat(parts, ignore_index=True).reindex(columns=names)
    numbers = {name: lines[name].astype(np.float64) for name in names[4:]}
    return lines.assign(**numbers, **{name: lines[name].astype(object).fillna("") for name in names[:4]})


def _document(found: Overall) -> Document:
    tables = [_summary(found), _by_dataset(found), _improvement(found), _profiles(found, "runs", _RUN_LEVELS)]
    if (found.profiles["kind"] == "ratio").any():
        tables.append(_profiles(found, "ratio", _RATIOS))
    return Document(tables, found.notes)


def _summary(found: Overall) -> Table:
    lines = found.summary
    columns = [Column.of("entrant", lines["entrant"]), Column.of("seeds", lines["seeds"], numeric=True)]
    if lines["failed"].any():
        columns.append(Column.of("failed", lines["failed"], numeric=True))
    columns += [
        Column("mean_rank", _bounded(lines, "mean_rank", 2), numeric=True),
        Column("borda_count", [f"{value:g}" for value in lines["borda"].round(2)], numeric=True),
        Column.of("borda_rank", lines["borda_rank"], numeric=True),
        *(Column(name, _bounded(lines, name, 3), numeric=True) for name in SCORES if lines[name].notna().any()),
    ]
    if lines["profile_score"].notna().any():
        columns.append(Column("profile_score", [f"{value:.3f}" for value in lines["profile_score"]], numeric=True))
    return table_of("Over all data sets", columns)


def _bounded(lines: pd.DataFrame, name: str, digits: int) -> list[str]:
    bounds = zip(lines[name], lines[f"{name}_low"], lines[f"{name}_high"], strict=True)
    return [
        f"{value:.{digits}f}" + ("" if np.isnan(low) else f" ({low:.{digits}f} to {high:.{digits}f})")
        for value, low, high in bounds
    ]


def _by_dataset(found: Overall) -> Table:
    lines = found.scores
    columns = [Column("entrant", found.entrants)]
    for name in dict.fromkeys(lines["dataset"]):
        own = lines[lines["dataset"] == name].set_index("entrant").loc[found.entrants]
        cells = [
            number(value) + (f" ({norm:.3f})" if found.is_normalised else "")
            for value, norm in zip(own["value"], own["normalised"], strict=True)
        ]
        columns.append(Column(f"{name}", cells, numeric=True))
    title = "Means over seeds on each data set"
    return table_of(f"{title} (normalised)" if found.is_normalised else title, columns)


def _improvement(found: Overall) -> Table:
    lines = found.improvement
    if len(found.entrants) > MOST_PAIRS:
        own = lines[lines["entrant"] == found.entrants[0]]
        title = f"Probability that a run of {found.entrants[0]} beats one of another"
        columns = [Column.of("against", own["against"]), Column("probability", _probabilities(own), numeric=True)]
        return table_of(title, columns)
    columns = [Column("entrant", found.entrants)]
    for other in found.entrants:
        own = lines[lines["against"] == other].set_index("entrant").reindex(found.entrants)
        columns.append(Column(other, _probabilities(own), numeric=True))
    return table_of("Probability that a run of the row beats one of the column", columns)


def _probabilities(lines: pd.DataFrame) -> list[str]:
    bounds = zip(lines["probability"], lines["low"], lines["high"], strict=True)
    return [
        "" if np.isnan(value) else f"{value:.2f}" + ("" if np.isnan(low) else f" ({low:.2f} to {high:.2f})")
        for value, low, high in bounds
    ]


def _profiles(found: Overall, kind: str, levels: tuple[float, ...]) -> Table:
    """The profile at a few levels: the share at the nearest level that was computed."""
    lines = found.profiles[found.profiles["kind"] == kind]
    columns = [Column("entrant", found.entrants)]
    if kind == "runs" and not found.is_normalised:
        levels = tuple(np.quantile(lines["level"], (0.0, 0.25, 0.5, 0.75)).tolist())
    for level in levels:
        known = lines["level"].unique()
        nearest = known[np.argmin(np.abs(known - level))]
        own = lines[lines["level"] == nearest].set_index("entrant").loc[found.entrants]
        name = f"above {nearest:.3g}" if kind == "runs" else f"within {nearest:.3g} times"
        columns.append(Column(name, [f"{share:.2f}" for share in own["share"]], numeric=True))
    title = (
        f"Share of runs by {found.scale}"
        if kind == "runs"
        else "Share of data sets by distance to the best possible value, against the least distance"
    )
    return table_of(title, columns)


def _content(found: Overall) -> dict[str, object]:
    frames = {name: plain_records(getattr(found, name)) for name in ("summary", "scores", "improvement", "profiles")}
    return {**frames, "notes": found.notes}
