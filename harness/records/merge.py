"""Merge the record files of a folder into one, while others record, read and merge.

The merged file gets its name before the files that it replaces are removed, and records carry ids, so at every
moment every record can be read and none is counted twice. A merge that is killed leaves at worst both.
"""

import contextlib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from subnetbench.harness.core.errors import SubnetbenchError
from subnetbench.harness.core.files import publish_table
from subnetbench.harness.records.item_copies import copy_items
from subnetbench.harness.records.read import RecordSet, Skipped, read_records, record_files
from subnetbench.harness.records.record import MERGED_PREFIX
from subnetbench.harness.records.schema import TEXT, arrow_schema
from subnetbench.harness.records.validate import Fault

_ORDER = ("method", "dataset", "config_hash", "seed", "record_id")
# Texts as long as a spec are held once for a million rows, instead of falling back to one copy a row.
_LARGE_FILE = {"compression": "zstd", "store_schema": False, "dictionary_pagesize_limit": 2**30}


@dataclass(frozen=True)
class Merged:
    """What a merge did: the file it wrote, how many records and rows are in it, and the files it removed."""

    path: Path
    records: int
    rows: int
    removed: tuple[Path, ...]
    skipped: tuple[Skipped, ...]
    invalid: int = 0
    """Records that are not valid, and therefore not in the file."""
    faults: tuple[Fault, ...] = ()
    """What is wrong with them."""
    items: int = 0
    """Files of scores by item that lie where those of the merged file belong."""
    items_lacking: int = 0
    """Those that are absent, or not what their record states."""


def merge(paths: Path | str | Iterable[Path | str], out: Path | str | None = None) -> list[Merged]:
    """Merge the records below `paths`; every record with all its columns.

    With `out`, everything goes into that one file (written over if it exists) and nothing is removed. Without,
    each folder of record files gets one `merged-*.parquet` and loses the files that are now in it; folders with
    fewer than two files are left alone. Files of scores by item stay where they are; with `out`, they are copied into a
    folder `items` beside it. Files that cannot be read are left alone too and listed in `skipped`, and so are
    files with records that are not valid, listed in `faults`; with `out`, their other records are merged.
    """
    roots = [paths] if isinstance(paths, Path | str) else list(paths)
    if out is not None:
        return [_write(read_records(roots), Path(out))]
    folders = sorted({file.parent for file in record_files(roots)})
    return [merged for folder in folders if (merged := _merge_in_place(folder)) is not None]


def _merge_in_place(folder: Path) -> Merged | None:
    records = read_records(folder)
    records = records.without(records.invalid_files)
    files = [file for file in records.files if file.parent == folder]
    if len(files) < 2:
        records.warn()
        return None
    ids = "\n".join(sorted(records.runs["record_id"].to_pylist()))
    path = folder / f"{MERGED_PREFIX}{hashlib.sha256(ids.encode()).hexdigest()[:16]}.parquet"
    merged = _write(records, path)
    removed = tuple(file for file in files if file != path)
    for file in removed:
        with contextlib.suppress(FileNotFoundError):  # another merge was faster
            file.unlink()
    return replace(merged, removed=removed)


def _write(records: RecordSet, path: Path) -> Merged:
    keys = pa.table({name: _plain(records.runs[name]) for name in _ORDER})
    order = pc.sort_indices(keys, [(name, "ascending") for name in _ORDER])
    position = pc.sort_indices(order)  # the inverse permutation: where each run goes
    rows = pc.sort_indices(position.take(records.scores["run"].combine_chunks()))
    table = records.long().take(rows)
    fields = []
    for field in arrow_schema():
        kind = pa.dictionary(pa.int32(), TEXT) if field.type == TEXT else field.type
        fields.append(pa.field(field.name, kind, nullable=field.nullable))
    items = copy_items(records, path)  # before the records that name them
    publish_table(table.cast(pa.schema(fields)), path, overwrite=True, **_LARGE_FILE)
    if pq.read_metadata(path).num_rows != len(table):
        raise SubnetbenchError(f"{path} was not written completely; the files it merges are still there")
    faults = (records.skipped, records.invalid, records.faults)
    return Merged(path, len(records.runs), len(table), (), *faults, items=len(items.files), items_lacking=items.lacking)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(TEXT) if pa.types.is_dictionary(column.type) else column
