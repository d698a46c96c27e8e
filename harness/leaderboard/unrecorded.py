"""Runs that left no record that counts: killed before they could write one, or with a record that cannot be true.

They have no values, but were tried: a comparison must not pass because their seeds are just not there.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd

from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.records.read import RecordSet
from subnetbench.harness.records.record import RECORDS_FOLDER
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.lookup import TRIALS
from subnetbench.harness.runs.spec import spec_from_json

CONFIG = ("task", "dataset", "method", "config_hash")
"""What a run without a record is known by."""
COLUMNS = (*CONFIG, "seed", "run_id", "why")
INVALID, UNREADABLE = "record not valid", "record not readable"
_SHOWN = 4
_RECORD_FILE = re.compile(r"(?P<run>(?P<label>.+)-s(?P<seed>\d{1,18})-[0-9a-f]{10})-\d+")


def without_record(records: RecordSet) -> pd.DataFrame:
    """The runs, one a line, with the columns of `COLUMNS`; trials of searches are left out.

    `why` is `INVALID`, `UNREADABLE`, or `no record` with the state of the run's folder. Of a folder whose spec cannot be
    read all but `run_id` and `why` are empty, and its seed is -1. What an invalid record says may be false; of one that
    cannot be read the name of its file tells method and data set (joined, as `method`) and the seed.
    """
    known = set(records.runs["run_id"].unique().to_pylist())
    parts = []
    invalid = records.invalid_runs
    if invalid is not None and len(invalid) and {*CONFIG, "trial"} <= set(invalid.column_names):
        frame = invalid.select([*CONFIG, "seed", "run_id", "trial"]).to_pandas()
        frame = frame[frame["trial"].isna() & ~frame["run_id"].isin(known)].drop_duplicates("run_id", keep="last")
        parts.append(frame.drop(columns="trial").assign(why=INVALID))
        known.update(invalid["run_id"].unique().to_pylist())
    folders = pd.DataFrame(list(_folders(records, known)), columns=list(COLUMNS))
    unreadable = pd.DataFrame(list(_unreadable(records, known | set(folders["run_id"]))), columns=list(COLUMNS))
    found: pd.DataFrame = pd.concat([*parts, folders, unreadable], ignore_index=True)
    return found.astype({name: object for name in COLUMNS if name != "seed"} | {"seed": np.int64})


def _unreadable(records: RecordSet, known: set[str]) -> Iterator[tuple[str | int, ...]]:
    names = [
        _RECORD_FILE.fullmatch(item.path.stem) for item in records.skipped if item.path.parent.parent.name != TRIALS
    ]
    runs = {name["run"]: name for name in names if name is not None and name["run"] not in known}
    for run, name in runs.items():
        yield ("", "", name["label"], "", int(name["seed"]), run, UNREADABLE)


def _folders(records: RecordSet, known: set[str]) -> Iterator[tuple[str | int, ...]]:
    results = {root for root in records.roots if root.is_dir()}
    results |= {file.parent.parent for file in records.files if file.parent.name == RECORDS_FOLDER}
    for path in sorted(results):
        if path.name != TRIALS:
            names = [entry.name for entry in os.scandir(path / "runs")] if (path / "runs").is_dir() else []
            runs = [RunFolder(path, name) for name in sorted(set(names) - known)]
            yield from (_line(run) for run in runs if run.spec_file.exists())


def _line(run: RunFolder) -> tuple[str | int, ...]:
    why = f"no record, {run.state()}"
    try:
        spec = spec_from_json(run.spec_file.read_bytes())
    except (OSError, SubnetbenchError, RecursionError):
        return ("", "", "", "", -1, run.run_id, why)
    return (spec.task, spec.dataset, spec.method, spec.config_hash, spec.seed, run.run_id, why)


def notes_of(runs: pd.DataFrame) -> Iterator[str]:
    """What a listing says of runs without any record; records that are not valid are told elsewhere."""
    bare = runs[~runs["why"].isin([INVALID, UNREADABLE])]
    if len(bare):
        states = Counter(bare["why"].str.removeprefix("no record, "))
        listed = ", ".join(f"{count:,} {state}" for state, count in states.most_common())
        names = ", ".join(bare["run_id"][:_SHOWN]) + (", ..." if len(bare) > _SHOWN else "")
        yield f"{len(bare):,} run{'s' if len(bare) > 1 else ''} with a folder and no record ({listed}): {names}."


def matching(runs: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """For each pair of a row and a run of its config: `line` (a position in `rows`), `seed`, `why`.

    `rows` has the columns of `CONFIG`. An invalid record whose config is that of no row belongs to all rows of its
    method and data: its hash may be what is wrong with it. So does a record that cannot be read.
    """
    numbered = rows[list(CONFIG)].assign(line=np.arange(len(rows)))
    strange = (runs["why"] == INVALID) & ~runs["config_hash"].isin(set(rows["config_hash"]))
    unreadable = runs["why"] == UNREADABLE
    parts = []
    for some, names in ((runs[~strange & ~unreadable], list(CONFIG)), (runs[strange], list(CONFIG[:-1]))):
        parts.append(numbered.merge(some[[*names, "seed", "why"]], on=names)[["line", "seed", "why"]])
    if unreadable.any():
        labels = numbered[["line"]].assign(method=rows["method"].to_numpy() + "-" + rows["dataset"].to_numpy())
        parts.append(
            labels.merge(runs.loc[unreadable, ["method", "seed", "why"]], on="method")[["line", "seed", "why"]]
        )
    return pd.concat(parts, ignore_index=True)


def in_words(found: pd.DataFrame, lines: int) -> list[str]:
    """For each line what it lacks: `1 record not valid, 2 no record, stale`; empty where it lacks nothing."""
    words = [""] * lines
    for line, at in found.groupby("line").indices.items():
        whys = Counter(found["why"].iloc[at])
        words[int(str(line))] = ", ".join(f"{count} {why}" for why, count in whys.most_common())
    return words


def counts(found: pd.DataFrame, lines: int) -> np.ndarray:
    """How many such runs each line has."""
    return np.bincount(found["line"].to_numpy(np.int64), minlength=lines)


def tried(found: pd.DataFrame, seeds: np.ndarray, lines: int) -> np.ndarray:
    """Which of `seeds`, ascending, such a run has tried for each line: a mask (lines, seeds)."""
    mask = np.zeros((lines, len(seeds)), bool)
    own = found[found["seed"].isin(seeds)]
    mask[own["line"].to_numpy(np.int64), np.searchsorted(seeds, own["seed"].to_numpy(np.int64))] = True
    return mask
