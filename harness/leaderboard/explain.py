"""In what two rows of a leaderboard differ: config, data, code, numerics, files, libraries, machine, what was spent."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard.aggregate import EXPERIMENT
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.configs import flatten
from subnetbench.harness.leaderboard.document import Column, Document, table_of
from subnetbench.harness.leaderboard.formats import render_as
from subnetbench.harness.leaderboard.frames import filtered
from subnetbench.harness.runs.differences import part_as_texts
from subnetbench.harness.runs.lookup import folder_beside, matching_ids
from subnetbench.harness.runs.provenance import PartName, Provenance

ROW, NOTE, TIMES = "another row", "a note", "a note; times are not averaged"
EFFECTS = {
    **dict.fromkeys(("row", "config", "data", "files", "code", "numerics"), ROW),
    **dict.fromkeys(("libraries", "machine"), TIMES),
    **dict.fromkeys(("spent", "source"), NOTE),
}
"""The parts in the order in which they are printed, and what a difference in each makes."""
UNKNOWN = "unknown"
_DIGESTS = {"data": "data_digest", "files": "files_digest", "code": "code_digest", "numerics": "numerics"}
_OWN: Mapping[str, tuple[str, ...]] = {
    "row": tuple(name for name in EXPERIMENT if name not in ("config_hash", "data_digest")),
    **{part: (name,) for part, name in _DIGESTS.items()},
    "machine": ("device", "threads", "world_size", "host"),
    "source": ("git_sha", "git_dirty"),
}
_SPENT = ("training_macs", "input_training_macs", "images_seen", "steps", "energy_joules", "train_seconds", "gpu_hours")
_PROVENANCE: Mapping[PartName, str] = {
    "data": "data",
    "files": "files",
    "code": "code",
    "numerics": "numerics",
    "environment": "machine",
}
_OF_BUDGET = ("training_macs", "input_training_macs")
_SAME_SPENDING = 0.01
_ABSENT = "absent"
_SHOWN = 4


@dataclass(frozen=True)
class Difference:
    """One thing in which two rows differ: its part of what a run is made of, its name, and its values."""

    part: str
    name: str
    a: str
    b: str

    @property
    def effect(self) -> str:
        """What such a difference makes of two runs."""
        return ROW if self.name in _OF_BUDGET else EFFECTS[self.part]


@dataclass(frozen=True)
class Explanation:
    """The differences of two rows; `a` and `b` say which rows, and `unknown` which parts one of them does not tell.

    `same_row` is set where two runs of one row were named: then these runs are compared.
    """

    a: str
    b: str
    differences: tuple[Difference, ...]
    unknown: tuple[str, ...]
    same_row: bool = False

    def text(self, format: str = "terminal", width: int = 120) -> str:
        """A table with a line for each difference, in one of the formats of the leaderboard."""
        import pandas as pd

        return render_as(
            format,
            table=lambda: _document(self),
            frame=lambda: pd.DataFrame([_line(each) for each in self.differences], columns=list(_COLUMNS)),
            content=self.to_json,
            width=width,
        )

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        lines = [_line(each) for each in self.differences]
        return {**asdict(self), "differences": lines, "unknown": list(self.unknown)}


_COLUMNS = ("part", "name", "a", "b", "effect")


def _line(each: Difference) -> dict[str, str]:
    return {name: getattr(each, name) for name in _COLUMNS}


def _document(found: Explanation) -> Document:
    columns = [Column.of(name, [getattr(each, name) for each in found.differences]) for name in _COLUMNS]
    tables = [table_of(f"{len(found.differences):,} differences", columns)] if found.differences else []
    what = "Two runs of one row" if found.same_row else "Rows"
    notes = [f"{what}: a is {found.a}; b is {found.b}."]
    notes += ["They agree in all that is known."] if not found.differences else []
    notes += [f"Not known on a side: {', '.join(found.unknown)}."] if found.unknown else []
    return Document(tables, notes)


def explain_runs(board: Board, a: str, b: str | None = None) -> Explanation:
    """Explain the rows of two runs, each named by the beginning of its id; of one, if it stands in two rows.

    Where both are of one row, the two runs themselves are compared.

    Args:
        board: Made of whole records, trials included.
        a: A run of the first row.
        b: One of the second; None: the other row of the same id, the later one.

    Raises:
        UserError: There is no such run, or more than one row that it could mean.
    """
    found_a, found_b = (_records_of(board, run) for run in (a, b or a))
    groups = [{int(board.runs.group[record]) for record in found} for found in (found_a, found_b)]
    rows_a, rows_b = (sorted(found, key=lambda group: int(board.runs.latest[group])) for found in groups)
    if rows_a == rows_b and len(rows_a) == 2:
        return explain(board, *(_members(board, group) for group in rows_a))
    for rows, run, name in ((rows_a, a, "ROW_A"), (rows_b, b or a, "ROW_B")):
        if len(rows) > 1:
            raise UserError(f"stands for {len(rows)} rows: name them by --a and --b", field=name, value=run)
    if b is None:
        raise UserError("stands for one row only: name a second", field="ROW_B", value=a)
    if rows_a == rows_b:
        return explain(board, found_a, found_b, same_row=True)
    return explain(board, _members(board, rows_a[0]), _members(board, rows_b[0]))


def explain_filters(board: Board, a: str, b: str) -> Explanation:
    """Explain two rows, each chosen by a filter as in `Leaderboard.frame`; raises `UserError` unless it selects one."""
    groups = []
    for name, where in (("--a", a), ("--b", b)):
        found = filtered(board, board.rows, where)["group"].unique()
        if len(found) != 1:
            runs = [board.run_ids[_members(board, int(group))[0]] for group in found[:_SHOWN]]
            listed = f" (of {', '.join(runs)}{', ...' if len(found) > _SHOWN else ''})" if runs else ""
            raise UserError(f"selects {len(found)} rows{listed}, not one", field=name, value=where)
        groups.append(int(found[0]))
    return explain(board, *(_members(board, group) for group in groups))


def _records_of(board: Board, run: str) -> np.ndarray:
    """The counted records of the runs whose ids begin so."""
    ids = board.run_ids
    counted = np.flatnonzero(board.runs.group >= 0)
    wanted = set(matching_ids(run, set(ids[counted].tolist())))
    return counted[np.isin(ids[counted].astype(str), list(wanted))]


def _members(board: Board, group: int) -> np.ndarray:
    """The records of a row: the finished ones, or else all."""
    members = np.flatnonzero(board.runs.group == group)
    finished = members[board.runs.finished[members]]
    return finished if len(finished) else members


def explain(board: Board, a: np.ndarray, b: np.ndarray, *, same_row: bool = False) -> Explanation:
    """In what some records differ from others: both are indices into `board.records.runs`."""
    one, other = (_Stand.of(board, records) for records in (a, b))
    found = []
    for part, source in one.texts:
        before, after = one.texts[part, source], other.texts[part, source]
        # What only one side tells is not known to differ.
        names = dict.fromkeys([*before, *after] if before and after else ())
        lines = [Difference(part, name, before.get(name, _ABSENT), after.get(name, _ABSENT)) for name in names]
        found += [line for line in lines if line.a != line.b and not (part == "spent" and _spent_alike(line))]
    order = {part: at for at, part in enumerate(EFFECTS)}
    found.sort(key=lambda line: order[line.part])
    unknown = tuple(part for part in EFFECTS if part in one.unknown | other.unknown)
    return Explanation(one.name, other.name, tuple(found), unknown, same_row)


def _spent_alike(line: Difference) -> bool:
    try:
        a, b = float(line.a), float(line.b)
    except ValueError:
        return False
    return abs(a - b) <= _SAME_SPENDING * max(abs(a), abs(b))


@dataclass(frozen=True)
class _Stand:
    """What some runs stand on: texts by name for each part and source that tells of it, all values where runs differ;
    and the parts that are not known."""

    name: str
    texts: Mapping[tuple[str, str], Mapping[str, str]]
    unknown: frozenset[str]

    @classmethod
    def of(cls, board: Board, records: np.ndarray) -> "_Stand":
        runs = board.records.runs.take(records).to_pylist()
        texts: dict[tuple[str, str], dict[str, str]] = {
            (part, "record"): {name: _values(str(run[name]) for run in runs) for name in names}
            for part, names in _OWN.items()
        }
        configs = [{path: str(leaf) for path, leaf in flatten(run["config_json"]).items()} for run in runs]
        texts["config", "record"] = _joined(configs)
        texts["libraries", "record"] = _joined([_versions(text) for text in {run["versions_json"] for run in runs}])
        texts["spent", "record"] = {name: _mean(run[name] for run in runs) for name in _SPENT}
        provenances = list(_provenances(runs))
        for kind, part in _PROVENANCE.items():
            # Libraries are a part of their own, which all records tell; of provenances only those in run folders do.
            told = [part_as_texts(each.brief(), kind) for each in provenances]
            texts[part, "provenance"] = _joined([each for each in told if each])
        modules = [dict(each.code.modules) for each in provenances if each.code and each.code.modules]
        texts["code", "modules"] = _joined(modules)
        unknown = {part for part, name in _DIGESTS.items() if texts[part, "record"][name] == UNKNOWN}
        unknown |= {"libraries"} if not texts["libraries", "record"] else set()
        unknown |= {"spent"} if set(texts["spent", "record"].values()) == {UNKNOWN} else set()
        return cls(_described(runs), texts, frozenset(unknown))


def _described(runs: Sequence[Mapping[str, object]]) -> str:
    one, seeds = runs[0], sorted({str(run["seed"]) for run in runs})
    network = f" with {one['network']}" if one["network"] else ""
    ids = list(dict.fromkeys(str(run["run_id"]) for run in runs))
    more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
    return f"{one['method']}{network} on {one['dataset']}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)} ({ids[0]}{more})"


def _provenances(runs: Sequence[Mapping[str, object]]) -> Iterator[Provenance]:
    """What the records say, and where a run folder is beside a record, what it says: single modules are only there."""
    seen = set()
    for run in runs:
        recorded = str(run["provenance_json"])
        folder = folder_beside(Path(str(run["file"])), str(run["run_id"]))
        stored = (folder.provenance() if folder is not None else None) or Provenance()
        own = Provenance.from_text(recorded)
        # A run that was made again has left its folder to the later attempt.
        whole = stored if stored.code and own.code and stored.code.digest == own.code.digest else own
        key = json.dumps(whole.to_json(), sort_keys=True)
        if key not in seen:
            seen.add(key)
            yield whole


def _versions(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {str(name): str(version) for name, version in found.items()} if isinstance(found, dict) else {}


def _joined(texts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The texts of several runs by name; where these differ, all of them."""
    names = dict.fromkeys(name for each in texts for name in each)
    return {name: _values(each.get(name, _ABSENT) for each in texts) for name in names}


def _values(texts: Iterable[str]) -> str:
    seen = [text or UNKNOWN for text in dict.fromkeys(texts)]
    more = f" | and {len(seen) - _SHOWN} more" if len(seen) > _SHOWN else ""
    return " | ".join(sorted(seen)[:_SHOWN]) + more


def _mean(values: Iterable[object]) -> str:
    known = [float(value) for value in values if isinstance(value, int | float)]
    return f"{np.mean(known):.6g}" if known else UNKNOWN
