"""Read any number of record files: of several folders and schema versions, while others write and merge.

Nothing that lies in a folder can stop the reader. What is not a sound record is left out, counted, and named with
the reason in `RecordSet.skipped`.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from subnetbench.harness.errors import UserError
from subnetbench.harness.records import schema as schema_module
from subnetbench.harness.records.check import Wanted, conform, fault_of, wanted_columns
from subnetbench.harness.records.record import MERGED_PREFIX, RECORDS_FOLDER

MAX_FILE_BYTES = 2**30
MAX_ROWS = 50_000_000
MAX_UNCOMPRESSED_BYTES = 2**32
_PLAIN_BYTES = 2**27  # decode strings row by row only if that can never need more memory than this
_THREADS = 2
_LISTINGS = 100  # merges may replace the files that were listed; they are over long before this many listings
_VANISHED = "vanished while it was read"


@dataclass(frozen=True)
class Skipped:
    """A file, or the records of a file, that was left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class RecordSet:
    """Records in two tables, so that what is the same for a whole run is held once.

    `runs` has one row a record: the run-level columns that were asked for, and `file`. `scores` has one row a
    score: `run` (int32, a row of `runs`) and the score columns. Strings are dictionary-encoded.
    """

    runs: pa.Table
    scores: pa.Table
    skipped: tuple[Skipped, ...] = ()
    files: tuple[Path, ...] = ()
    """The files that the records came from."""
    duplicates: int = 0
    """Records that were met more than once (a folder given twice, a merge under way) and are held once."""

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
    return sorted(set(found))


def read_records(paths: Path | str | Iterable[Path | str], columns: Sequence[str] | None = None) -> RecordSet:
    """Read the records below `paths`. `columns` limits the run-level columns (default: all of them).

    Safe while other processes record and merge: a record is there whole or not at all, and is never counted
    twice. Raises `UserError` for a path that does not exist.
    """
    roots = [paths] if isinstance(paths, Path | str) else list(paths)
    wanted = wanted_columns(columns)
    listed = record_files(roots)
    outcomes = dict(zip(listed, _read_all(listed, wanted), strict=True))
    for _ in range(_LISTINGS):
        files = record_files(roots)
        # A merge under way may have moved records from files that a listing missed to one it could not know.
        merged = any(file not in outcomes and file.name.startswith(MERGED_PREFIX) for file in files)
        if not merged and set(files).issuperset(listed):
            break
        # What was read counts, whatever became of its file: records are never changed, and each is held once.
        new = [file for file in files if outcomes.get(file, _VANISHED) == _VANISHED]
        outcomes.update(zip(new, _read_all(new, wanted), strict=True))
        listed = files
    else:
        return _assemble(outcomes, wanted)
    gone = {file for file, outcome in outcomes.items() if outcome == _VANISHED}.difference(files)
    return _assemble({file: outcome for file, outcome in outcomes.items() if file not in gone}, wanted)


@dataclass(frozen=True)
class _Part:
    """The rows of one file, the first row of each of its records, and the record of each row."""

    rows: pa.Table
    heads: pa.Table
    record_of_row: np.ndarray


_Outcome = _Part | str


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


def _read_all(files: Sequence[Path], wanted: Wanted) -> list[_Outcome]:
    """The outcome for each file, in order. Threads take interleaved shares: one task a file costs more than it."""
    if len(files) < 2 * _THREADS:
        return [_read_file(file, wanted) for file in files]
    outcomes: list[_Outcome] = [""] * len(files)
    with ThreadPoolExecutor(_THREADS) as pool:
        shares = [files[i::_THREADS] for i in range(_THREADS)]
        for i, share in enumerate(pool.map(lambda share: [_read_file(f, wanted) for f in share], shares)):
            outcomes[i::_THREADS] = share
    return outcomes


def _read_file(path: Path, wanted: Wanted) -> _Outcome:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return f"larger than {MAX_FILE_BYTES:,} bytes"
        # Not memory-mapped: someone may truncate the file under the map, which would kill this process.
        return _decode(path.read_bytes(), wanted)
    except FileNotFoundError:
        return _VANISHED
    except Exception as error:
        # The decoder meets bytes that anybody can write; whatever it raises concerns this file alone.
        first_line = (str(error).splitlines() or [""])[0]
        return f"not a readable parquet file: {type(error).__name__}: {first_line[:200]}"


def _decode(content: bytes, wanted: Wanted) -> _Part | str:
    file = pq.ParquetFile(pa.BufferReader(content))
    footer = file.metadata  # its `schema` is not asked for: that makes a cycle, which the collector has to undo
    size = sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
    if footer.num_rows == 0:
        return "it has no rows"
    if footer.num_rows > MAX_ROWS or size > MAX_UNCOMPRESSED_BYTES:
        return f"too large: {footer.num_rows:,} rows, {size:,} bytes uncompressed"
    if footer.num_rows * size > _PLAIN_BYTES:
        strings = [column.name for column in wanted.columns if column.type == schema_module.TEXT]
        file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=strings)
    # Columns that are not there are left out of the table without an error; `conform` sees to them.
    table = file.read(columns=wanted.schema.names, use_threads=footer.num_rows > 100_000)
    table = conform(table, wanted)
    return table if isinstance(table, str) else _split(table)


def _split(table: pa.Table) -> _Part | str:
    """Separate what is the same in all rows of a record from the scores."""
    records = table["record_id"].combine_chunks()
    if records.null_count:
        return "column 'record_id' is null in some rows"
    if not pa.types.is_dictionary(records.type):
        records = records.dictionary_encode()
    if len(records.dictionary) == 1:  # the file of one run; `take` would cost as much as reading it
        return _Part(table, table.slice(0, 1), np.zeros(len(table), np.int64))
    codes = records.indices.to_numpy()
    first_row = np.full(len(records.dictionary), -1)
    first_row[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # the last assignment to a place wins
    used = first_row >= 0
    return _Part(table, table.take(first_row[used]), (np.cumsum(used) - 1)[codes])


def _assemble(outcomes: Mapping[Path, _Outcome], wanted: Wanted) -> RecordSet:
    ordered = sorted(outcomes.items(), key=lambda item: item[0])
    skipped = [Skipped(file, outcome) for file, outcome in ordered if isinstance(outcome, str)]
    parts = [(file, outcome) for file, outcome in ordered if isinstance(outcome, _Part)]
    runs, scores = _concatenate(parts, wanted)
    if fault_of(runs) or fault_of(scores):
        faults = [fault_of(part.rows) for _, part in parts]
        skipped += [Skipped(file, fault) for (file, _), fault in zip(parts, faults, strict=True) if fault]
        parts = [part for part, fault in zip(parts, faults, strict=True) if not fault]
        runs, scores = _concatenate(parts, wanted)
    runs, scores, duplicates = _once(runs, scores)
    skipped.sort(key=lambda item: item.path)
    return RecordSet(runs, scores, tuple(skipped), tuple(file for file, _ in parts), duplicates)


def _concatenate(parts: Sequence[tuple[Path, _Part]], wanted: Wanted) -> tuple[pa.Table, pa.Table]:
    runs = _stack([part.heads for _, part in parts], wanted, of_score=False)
    scores = _stack([part.rows for _, part in parts], wanted, of_score=True)
    lengths = [len(part.heads) for _, part in parts]
    file = np.repeat(np.arange(len(parts), dtype=np.int32), lengths)
    paths = pa.array([str(path) for path, _ in parts], pa.string())
    runs = runs.append_column("file", pa.DictionaryArray.from_arrays(file, paths))
    starts = np.cumsum([0, *lengths])[:-1]
    rows = [part.record_of_row + start for (_, part), start in zip(parts, starts, strict=True)]
    run = np.concatenate([np.zeros(0, np.int64), *rows])
    return runs, scores.add_column(0, "run", pa.array(run.astype(np.int32)))


def _stack(tables: Sequence[pa.Table], wanted: Wanted, *, of_score: bool) -> pa.Table:
    """One table of single chunks, its strings dictionary-encoded: the score columns, or all others."""
    plain: list[pa.Table] = [wanted.schema.empty_table()]
    others: list[pa.Table] = []
    for table in tables:
        (plain if table.schema.equals(wanted.schema) else others).append(table)
    names = wanted.names(of_score=of_score)
    whole = pa.concat_tables(plain).select(names).combine_chunks()
    encoded = [_encode_strings(table) for table in (whole, *(other.select(names) for other in others))]
    return pa.concat_tables(encoded).unify_dictionaries().combine_chunks()


def _encode_strings(table: pa.Table) -> pa.Table:
    arrays = [a.dictionary_encode() if a.type == schema_module.TEXT else a for a in table.columns]
    return pa.table(arrays, names=table.column_names)


def _once(runs: pa.Table, scores: pa.Table) -> tuple[pa.Table, pa.Table, int]:
    """Hold each record once: the first that was read."""
    codes = runs["record_id"].combine_chunks().indices.to_numpy() if len(runs) else np.zeros(0, np.int32)
    _, first = np.unique(codes, return_index=True)
    if len(first) == len(runs):
        return runs, scores, 0
    keep = np.zeros(len(runs), bool)
    keep[first] = True
    run = scores["run"].to_numpy()
    renumbered = (np.cumsum(keep) - 1).astype(np.int32)[run]
    scores = scores.set_column(0, "run", pa.array(renumbered)).filter(pa.array(keep[run]))
    return runs.filter(pa.array(keep)), scores, len(runs) - len(first)
