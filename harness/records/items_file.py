"""Scores by item as files: one parquet file a record, beside the folder of records, written before the record.

<results>/items/<record id>.parquet. A row without `metric` is a set of items: `item`, `label`, `classes`, `cluster`; a
row with one is a score, whose `value` has a number for each item of its `set`. The record holds the SHA-256 of the file
as `items_digest`. What was not written by this program is met with bounds and a fixed schema, as records are.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from subnetbench.harness.core.files import publish
from subnetbench.harness.records.items import Items, ItemSet, ItemValues, ScoreKey
from subnetbench.harness.records.record import RECORDS_FOLDER, Score

ITEMS_FOLDER = "items"
MAX_FILE_BYTES = 2**28
MAX_VALUES = 200_000_000
MAX_ROWS = 100_000
_MAX_NAME_BYTES = 4096
_RECORD_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")

_TEXT, _WHOLE = pa.string(), pa.int32()
_KEY: Final = ("metric", "split", "variant", "gallery_variant")
_OF_SET: Final = ("item", "label", "cluster")
SCHEMA: Final = pa.schema(
    [
        *(pa.field(name, _WHOLE, nullable=False) for name in ("items_version", "set")),
        *(pa.field(name, _TEXT, nullable=False) for name in ("kind", *_KEY)),
        *(pa.field(name, pa.list_(_WHOLE)) for name in _OF_SET),
        pa.field("classes", pa.list_(_TEXT)),
        pa.field("value", pa.list_(pa.float32())),
    ]
)
ITEMS_VERSION: Final = 1
_OPTIONS: dict[str, Any] = {  # open: options of pyarrow
    "compression": "zstd",
    "compression_level": 9,
    "store_schema": False,
    "write_statistics": False,
    # Shares of few values (right or wrong, average precisions) are codes of a few bits in a dictionary.
    "dictionary_pagesize_limit": 2**22,
    "use_dictionary": ["kind", *_KEY, "label.list.element", "classes.list.element", "value.list.element"],
    # Indices mostly rise by one or stay.
    "column_encoding": dict.fromkeys(("item.list.element", "cluster.list.element"), "DELTA_BINARY_PACKED"),
}


class ItemsFault(ValueError):
    """Why a file of scores by item cannot be used, in words for a listing."""


@dataclass(frozen=True)
class Written:
    """A file of scores by item that was written."""

    path: Path
    digest: str
    size: int


def items_of(scores: Iterable[Score]) -> Items:
    """The scores by item that came with scores; equal sets of items are held once."""
    sets: list[ItemSet] = []
    values: dict[ScoreKey, ItemValues] = {}
    for score in scores:
        if score.items is None:
            continue
        known = next((each for each in sets if each.same_as(score.items.of)), None)
        if known is None:
            known = score.items.of
            sets.append(known)
        key = (score.metric, score.split, score.variant, score.gallery_variant)
        values.setdefault(key, ItemValues(known, score.items.value))
    return Items(values)


def write_items(folder: Path | str, record_id: str, items: Items) -> Written:
    """Write `<folder>/items/<record id>.parquet`, whole or not at all.

    Raises:
        SubnetbenchError: The folder cannot be written.
    """
    content = io.BytesIO()
    pq.write_table(to_table(items), content, **_OPTIONS)
    data = content.getvalue()
    path = Path(folder) / ITEMS_FOLDER / f"{record_id}.parquet"
    publish(path, lambda file: file.write(data), overwrite=True)
    return Written(path, hashlib.sha256(data).hexdigest(), len(data))


def to_table(items: Items) -> pa.Table:
    """All scores of a record in the form of the file."""
    sets = items.sets
    number = {id(each): at for at, each in enumerate(sets)}
    keys = [("", "", "", "")] * len(sets) + list(items.values)
    of = [*range(len(sets)), *(number[id(each.of)] for each in items.values.values())]
    texts = {name: pa.array([key[at] for key in keys], _TEXT) for at, name in enumerate(_KEY)}
    none: list[None] = [None] * len(items)
    columns = {
        "items_version": pa.array([ITEMS_VERSION] * len(keys), _WHOLE),
        "set": pa.array(of, _WHOLE),
        "kind": pa.array([sets[at].kind for at in of], _TEXT),
        **texts,
        **{name: _lists([*(getattr(each, name) for each in sets), *none], _WHOLE) for name in _OF_SET},
        "classes": pa.array([*(list(each.classes) for each in sets), *none], pa.list_(_TEXT)),
        "value": _lists([*[None] * len(sets), *(each.value for each in items.values.values())], pa.float32()),
    }
    return pa.table(columns, schema=SCHEMA)


def _lists(arrays: Sequence[np.ndarray | None], kind: pa.DataType) -> pa.Array:
    ends = np.cumsum([0, *(0 if array is None else len(array) for array in arrays)]).astype(np.int32)
    flat = np.concatenate([np.zeros(0), *(array for array in arrays if array is not None)])
    mask = pa.array([array is None for array in arrays], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(flat.astype(kind.to_pandas_dtype())), mask=mask)


def items_path(record_file: Path | str, record_id: str) -> Path | None:
    """Where the scores by item of a record lie, given the file of the record; None for an id that names no file.

    Beside the folder `records` that holds the file, or beside the file itself (a merged or published one).
    """
    if not _RECORD_ID.fullmatch(record_id):
        return None
    folder = Path(record_file).parent
    home = folder.parent if folder.name == RECORDS_FOLDER else folder
    return home / ITEMS_FOLDER / f"{record_id}.parquet"


def read_items(path: Path, digest: str | None = None, metrics: Iterable[str] | None = None) -> Items:
    """Read the scores by item of one record; of some `metrics` only (None: all).

    Args:
        path: The file.
        digest: SHA-256 that the file must have, as the record states it; None: it is not checked.
        metrics: Their names.

    Raises:
        ItemsFault: The file is missing, too large, has another digest, or is none of this kind.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ItemsFault(f"larger than {MAX_FILE_BYTES:,} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise ItemsFault(f"cannot be read: {error.strerror or error}") from None
    if digest is not None and hashlib.sha256(content).hexdigest() != digest:
        raise ItemsFault("its content is not what its record says (another digest)")
    try:
        return _checked(_decode(content), None if metrics is None else set(metrics))
    except ItemsFault:
        raise
    except Exception as error:
        # The decoder meets bytes that anybody can write; whatever it raises concerns this file alone.
        first_line = (str(error).splitlines() or [""])[0]
        raise ItemsFault(f"not a readable parquet file: {type(error).__name__}: {first_line[:200]}") from None


def _decode(content: bytes) -> pa.Table:
    footer = pq.ParquetFile(pa.BufferReader(content)).metadata
    there = {footer.schema.column(at).path.partition(".")[0] for at in range(footer.num_columns)}
    if lacking := [name for name in SCHEMA.names if name not in there]:
        raise ItemsFault(f"it has no column {lacking[0]!r}")
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    values = sum(group.column(at).num_values for group in groups for at in range(group.num_columns))
    if footer.num_rows > MAX_ROWS or values > MAX_VALUES or sum(g.total_byte_size for g in groups) > 2**30:
        raise ItemsFault(f"too large: {footer.num_rows:,} rows, {values:,} values")
    # Texts stay codes of a dictionary: a few bytes may stand for very many copies of a long one.
    texts = ["kind", *_KEY, "classes.list.element"]
    file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts, metadata=footer)
    table = file.read(columns=SCHEMA.names, use_threads=False)
    for field in SCHEMA:
        found = table.schema.field(field.name).type
        if _plain(found) != field.type:
            raise ItemsFault(f"column {field.name!r} has type {found}, not {field.type}")
        if table[field.name].null_count and not field.nullable:
            raise ItemsFault(f"column {field.name!r} is null in some rows")
    return table.combine_chunks()


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.list_(_plain(kind.value_type)) if pa.types.is_list(kind) else kind


def _checked(table: pa.Table, metrics: set[str] | None) -> Items:
    if any(version != ITEMS_VERSION for version in table["items_version"].unique().to_pylist()):
        raise ItemsFault("written by a newer version of subnetbench")
    names = {name: table[name].to_pylist() for name in ("set", "kind", *_KEY)}
    columns = {name: table[name].combine_chunks() for name in (*_OF_SET, "classes", "value")}
    sets: dict[int, ItemSet] = {}
    values: dict[ScoreKey, ItemValues] = {}
    for row, (number, kind, metric) in enumerate(zip(names["set"], names["kind"], names["metric"], strict=True)):
        if not metric:
            if number in sets:
                raise ItemsFault(f"two sets of items have the number {number}")
            sets[number] = _item_set(columns, row, kind)
        elif metrics is None or metric in metrics:
            key: ScoreKey = (metric, names["split"][row], names["variant"][row], names["gallery_variant"][row])
            if number not in sets or key in values:
                raise ItemsFault(f"the score {' '.join(filter(None, key))[:200]} is of no set of items, or there twice")
            try:
                values[key] = ItemValues(sets[number], _flat(columns["value"], row))
            except ValueError as error:
                raise ItemsFault(str(error)) from None
    return Items(values)


def _item_set(columns: dict[str, pa.Array], row: int, kind: str) -> ItemSet:
    arrays = {name: _flat(columns[name], row) for name in _OF_SET}
    classes = columns["classes"][row].as_py()
    if classes is None or any(name is None or len(name) > _MAX_NAME_BYTES for name in classes):
        raise ItemsFault("a set of items has no names of classes")
    try:
        return ItemSet(kind, **arrays, classes=tuple(classes))
    except ValueError as error:
        raise ItemsFault(str(error)) from None


def _flat(column: pa.ListArray, row: int) -> np.ndarray:
    """The list in one row, without copying."""
    if not column[row].is_valid:
        raise ItemsFault("a list is missing in some row")
    start, end = column.offsets[row].as_py(), column.offsets[row + 1].as_py()
    found = column.values[start:end]
    if found.null_count:
        raise ItemsFault("a list holds nulls")
    return np.asarray(found.to_numpy())
