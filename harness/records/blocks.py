"""Record files, read many at a time: what is sound in them comes in blocks, what is not is named with the reason.

A run leaves a file of a few dozen rows, and a table of Arrow has a price of its own whatever its size. Files are
therefore joined into blocks while they are still warm in the cache, and all further work is done once a block.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from subnetbench.harness.records import schema as schema_module
from subnetbench.harness.records.check import Wanted, conform, fault_of

MAX_FILE_BYTES = 2**30
MAX_ROWS = 50_000_000
MAX_UNCOMPRESSED_BYTES = 2**32
VANISHED = "vanished while it was read"
_PLAIN_BYTES = 2**27  # decode strings row by row only if that can never need more memory than this
_THREADS = 2
_BLOCK_FILES = 100
_BLOCK_ROWS = 10_000


@dataclass(frozen=True)
class Block:
    """The records of some files. Strings are dictionary-encoded."""

    files: tuple[Path, ...]
    runs: pa.Table
    """One row a record: the run-level columns."""
    scores: pa.Table
    file_of_run: np.ndarray
    run_of_score: np.ndarray

    @classmethod
    def of(cls, files: Sequence[Path], tables: Sequence[pa.Table], wanted: Wanted) -> Self | str:
        """The block of some files of one schema, or what is wrong with one of them."""
        rows = pa.table(
            [
                column.dictionary_encode() if column.type == schema_module.TEXT else column
                for column in pa.concat_tables(tables).combine_chunks().columns
            ],
            names=wanted.schema.names,
        )
        if fault := fault_of(rows):
            return fault
        of_file = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        codes = rows["record_id"].combine_chunks().indices.to_numpy()
        # A record that lies in two files of a block (a folder and its copy) is two, each with its own rows.
        keys = of_file * (int(codes.max()) + 1) + codes
        first_row = np.full(int(keys.max()) + 1, -1)
        first_row[keys[::-1]] = np.arange(len(keys) - 1, -1, -1)  # the last assignment to an index wins
        used = first_row >= 0
        heads = first_row[used]
        runs = rows.select(wanted.names(of_score=False)).take(heads)
        scores = rows.select(wanted.names(of_score=True))
        return cls(tuple(files), runs, scores, of_file[heads], (np.cumsum(used) - 1)[keys])


@dataclass
class Readings:
    """What was found in files so far."""

    blocks: list[Block] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)

    def vanished(self, file: Path) -> bool:
        """Whether a file was listed, but gone when it was to be read."""
        return self.skipped.get(file) == VANISHED

    def read(self, files: Sequence[Path], wanted: Wanted) -> None:
        """Read files that were not read before, or that had vanished."""
        for file in files:
            self.skipped.pop(file, None)
        middle = len(files) // 2
        shares = [files[:middle], files[middle:]] if middle >= _THREADS else [files]
        with ThreadPoolExecutor(_THREADS) as pool:
            for blocks, skipped in pool.map(lambda share: _read_share(share, wanted), shares):
                self.blocks += blocks
                self.skipped |= skipped


def _read_share(files: Sequence[Path], wanted: Wanted) -> tuple[list[Block], dict[Path, str]]:
    blocks: list[Block] = []
    skipped: dict[Path, str] = {}
    waiting: dict[Path, pa.Table] = {}
    rows = 0

    def join() -> None:
        nonlocal rows
        rows = 0
        if waiting:
            found, faults = _joined(waiting, wanted)
            blocks.extend(found)
            skipped.update(faults)
            waiting.clear()

    for file in files:
        table = _read_file(file, wanted)
        if isinstance(table, str):
            skipped[file] = table
            continue
        alone = len(table) > _BLOCK_ROWS or not table.schema.equals(wanted.schema)
        if alone or len(waiting) == _BLOCK_FILES or rows > _BLOCK_ROWS:
            join()
        waiting[file] = table
        rows += len(table)
        if alone:
            join()
    join()
    return blocks, skipped


def _joined(tables: dict[Path, pa.Table], wanted: Wanted) -> tuple[list[Block], dict[Path, str]]:
    """One block; or, where something is wrong with one of the files, a block of each of the others."""
    try:
        block = Block.of(list(tables), list(tables.values()), wanted)
    except Exception as error:
        block = _unreadable(error)
    if isinstance(block, Block):
        return [block], {}
    if len(tables) == 1:
        return [], dict.fromkeys(tables, block)
    parts = [_joined({file: table}, wanted) for file, table in tables.items()]
    return [b for blocks, _ in parts for b in blocks], {
        file: why for _, faults in parts for file, why in faults.items()
    }


def _read_file(path: Path, wanted: Wanted) -> pa.Table | str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return f"larger than {MAX_FILE_BYTES:,} bytes"
        # Not memory-mapped: someone may truncate the file under the map, which would kill this process.
        return _decode(path.read_bytes(), wanted)
    except FileNotFoundError:
        return VANISHED
    except Exception as error:
        # The decoder meets bytes that anybody can write; whatever it raises concerns this file alone.
        return _unreadable(error)


def _unreadable(error: Exception) -> str:
    first_line = (str(error).splitlines() or [""])[0]
    return f"not a readable parquet file: {type(error).__name__}: {first_line[:200]}"


def _decode(content: bytes, wanted: Wanted) -> pa.Table | str:
    file = pq.ParquetFile(pa.BufferReader(content))
    footer = file.metadata  # its `schema` is not read: that makes a cycle, which the collector has to undo
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
    return conform(table, wanted)
