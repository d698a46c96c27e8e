"""Read any number of record files: of several folders and schema versions, while others write and merge.

Nothing that lies in a folder can stop the reader. Files that cannot be read are left out and named with the reason in
`RecordSet.skipped`, records that cannot be true in `RecordSet.faults`.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.records import schema as schema_module
from subnetbench.harness.records.blocks import Readings
from subnetbench.harness.records.check import Wanted, wanted_columns
from subnetbench.harness.records.record import MERGED_PREFIX, RECORDS_FOLDER
from subnetbench.harness.records.schema import TEXT
from subnetbench.harness.records.validate import CHECKED, Fault, find_faults

_log = logging.getLogger(__name__)
_SHOWN = 4
_LISTINGS = 100  # merges may replace the files that were listed; they are over long before this many listings


@dataclass(frozen=True)
class Skipped:
    """A file, or the records of a file, that was left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class RecordSet:
    """Records in two tables, so that what is the same for a whole run is held once.

    `runs` has one row a record: the selected run-level columns, and `file`. `scores` has one row a
    score: `run` (int32, a row of `runs`) and the score columns. Strings are dictionary-encoded.
    """

    runs: pa.Table
    scores: pa.Table
    skipped: tuple[Skipped, ...] = ()
    files: tuple[Path, ...] = ()
    """The files that the records came from."""
    duplicates: int = 0
    """Records that were met more than once (a folder given twice, a merge under way) and are held once."""
    invalid: int = 0
    """Records that were left out because they cannot be true."""
    faults: tuple[Fault, ...] = ()
    """What is wrong with them."""
    not_finite: tuple[Fault, ...] = ()
    """Values of known metrics that are not finite; their records are not left out."""
    invalid_files: frozenset[Path] = frozenset()
    """The files that hold them, perhaps beside others."""
    invalid_runs: pa.Table | None = None
    """Those records, with the columns of `runs`; what they say may be false."""
    roots: tuple[Path, ...] = ()
    """What was asked for."""

    def left_out(self) -> list[str]:
        """What was left out and why, in lines for a reader; those that name files are indented."""
        lines = []
        if self.skipped:
            lines.append(f"{_many(len(self.skipped), 'file')} skipped:")
            lines += _first([f"{item.path}: {item.reason}" for item in self.skipped])
        if self.invalid:
            fields = Counter(fault.field.partition(" ")[0] for fault in self.faults)
            listed = ", ".join(f"{count:,} x {field}" for field, count in fields.most_common(_SHOWN))
            more = f", and {len(fields) - _SHOWN} more" if len(fields) > _SHOWN else ""
            lines.append(f"{_many(self.invalid, 'record')} not valid and left out ({listed}{more}):")
            lines += _first([str(fault) for fault in self.faults])
        return lines

    def warn(self) -> None:
        """Log what was left out, for listings that have no room for it."""
        if lines := self.left_out():
            _log.warning("\n".join(lines))

    def without(self, files: Set[Path]) -> "RecordSet":
        """The same without the records of some files."""
        names = set(map(str, files))
        kept = self.only(np.array([file not in names for file in self.runs["file"].to_pylist()], bool))
        return replace(kept, files=tuple(file for file in self.files if file not in files))

    def only(self, keep: np.ndarray) -> "RecordSet":
        """The same with some of the records alone; `keep` (runs,) is a mask."""
        runs, scores = _only(self.runs, self.scores, keep)
        return replace(self, runs=runs, scores=scores)

    def long(self) -> pa.Table:
        """All rows in the long form of the files (the columns that were read), strings dictionary-encoded."""
        runs = self.runs.take(self.scores["run"])
        columns = {name: runs[name] for name in self.runs.column_names}
        columns |= {name: self.scores[name] for name in schema_module.score_columns()}
        order = [column.name for column in schema_module.COLUMNS if column.name in columns]
        return pa.table({name: columns[name] for name in order})


def record_files(paths: Iterable[Path | str]) -> list[Path]:
    """The files that may hold records: files given by name, and what lies in any `records` folder below a folder.

    A folder that itself holds parquet files (a copy of a `records` folder) counts too. Hidden and temporary files
    are passed over. Raises `UserError` for a path that does not exist.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_file():
            found.append(path)
        elif path.is_dir():
            found += _files_below(path)
        else:
            raise UserError("no such file or folder", field="path", value=str(path))
    return sorted(set(found), key=str)


def read_records(paths: Path | str | Iterable[Path | str], columns: Sequence[str] | None = None) -> RecordSet:
    """Read the records below `paths`. `columns` limits the run-level columns (default: all of them).

    Records are validated whatever the columns: those that cannot be true are left out. Safe while other processes record
    and merge: a record is there whole or not at all, and is never counted twice. Raises `UserError` for a path that does
    not exist.
    """
    shown = wanted_columns(columns)
    wanted = shown if columns is None else wanted_columns({*columns, *CHECKED})
    records = _read(paths, wanted)
    if wanted is shown:
        return records
    names = [name for name in records.runs.column_names if name in {*shown.names(of_score=False), "file"}]
    return replace(records, runs=records.runs.select(names))


def _read(paths: Path | str | Iterable[Path | str], wanted: Wanted) -> RecordSet:
    roots = [paths] if isinstance(paths, Path | str) else list(paths)
    listed = record_files(roots)
    readings = Readings()
    readings.read(listed, wanted)
    known = set(listed)
    for _ in range(_LISTINGS):
        files = record_files(roots)
        # A merge under way may have moved records from files that a listing missed to one it could not know.
        merged = any(file not in known and file.name.startswith(MERGED_PREFIX) for file in files)
        if not merged and set(files).issuperset(listed):
            break
        # What was read counts, whatever became of its file: records are never changed, and each is held once.
        readings.read([file for file in files if file not in known or readings.vanished(file)], wanted)
        known.update(files)
        listed = files
    else:
        return _assemble(readings, wanted, roots)
    gone = {file for file in known.difference(files) if readings.vanished(file)}
    return _assemble(readings, wanted, roots, gone)


def _files_below(folder: Path) -> list[Path]:
    found = _parquet_files(folder)
    for parent, folders, _ in os.walk(folder):
        if RECORDS_FOLDER in folders:
            found += _parquet_files(Path(parent) / RECORDS_FOLDER)
            folders.remove(RECORDS_FOLDER)
    return found


def _parquet_files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return [
            Path(entry.path)
            for entry in entries
            if entry.name.endswith(".parquet") and entry.name[0] not in "._" and entry.is_file()
        ]


def _assemble(
    readings: Readings, wanted: Wanted, roots: Sequence[Path | str], gone: Set[Path] = frozenset()
) -> RecordSet:
    blocks = sorted(readings.blocks, key=lambda block: str(block.files[0]))
    files = [file for block in blocks for file in block.files]
    first_file = np.cumsum([0, *(len(block.files) for block in blocks)])
    first_run = np.cumsum([0, *(len(block.runs) for block in blocks)])
    file = [block.file_of_run + first for block, first in zip(blocks, first_file[:-1], strict=True)]
    run = [block.run_of_score + first for block, first in zip(blocks, first_run[:-1], strict=True)]
    runs = _stack([block.runs for block in blocks], wanted.names(of_score=False), wanted)
    scores = _stack([block.scores for block in blocks], wanted.names(of_score=True), wanted)
    paths = pa.array(map(str, files), pa.string())
    runs = runs.append_column("file", pa.DictionaryArray.from_arrays(_joined(file), paths))
    scores = scores.add_column(0, "run", _joined(run))
    # Before copies are removed: a faulty copy must not stand in for a sound record.
    findings = find_faults(runs, scores)
    of_file = np.concatenate([np.zeros(0, np.int64), *file])
    invalid_files = frozenset(files[i] for i in np.unique(of_file[findings.invalid]))
    invalid_runs = runs.filter(pa.array(findings.invalid))
    copies = findings.copies[~findings.invalid]
    runs, scores = _only(*_only(runs, scores, ~findings.invalid), ~copies)
    skipped = [Skipped(path, reason) for path, reason in sorted(readings.skipped.items()) if path not in gone]
    return RecordSet(
        runs,
        scores,
        tuple(skipped),
        tuple(sorted(files, key=str)),
        int(copies.sum()),
        int(findings.invalid.sum()),
        findings.faults,
        findings.not_finite,
        invalid_files,
        invalid_runs,
        tuple(map(Path, roots)),
    )


def _stack(tables: Sequence[pa.Table], names: Sequence[str], wanted: Wanted) -> pa.Table:
    """One table of single chunks, with one dictionary a column."""
    empty = wanted.schema.empty_table().select(names)
    encoded = pa.table([c.dictionary_encode() if c.type == TEXT else c for c in empty.columns], names=names)
    return pa.concat_tables([encoded, *tables]).unify_dictionaries().combine_chunks()


def _joined(numbers: Sequence[np.ndarray]) -> pa.Array:
    return pa.array(np.concatenate([np.zeros(0, np.int64), *numbers]).astype(np.int32))


def _only(runs: pa.Table, scores: pa.Table, keep: np.ndarray) -> tuple[pa.Table, pa.Table]:
    """The records that a mask keeps, with their scores."""
    if keep.all():
        return runs, scores
    run = scores["run"].to_numpy()
    renumbered = (np.cumsum(keep) - 1).astype(np.int32)[run]
    scores = scores.set_column(0, "run", pa.array(renumbered)).filter(pa.array(keep[run]))
    return runs.filter(pa.array(keep)), scores


def _first(lines: Sequence[str]) -> list[str]:
    more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return [*(f"  {line}" for line in lines[:_SHOWN]), *more]


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
