"""Whether a table that somebody wrote is a record: its columns, their types, and what is in them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.records import schema as schema_module
from subnetbench.harness.records.schema import Column

MAX_TEXT_BYTES = 2**20
"""Longest text of a `*_json` column; other texts may have `MAX_NAME_BYTES`."""
MAX_NAME_BYTES = 4096


ENCODED = pa.dictionary(pa.int32(), schema_module.TEXT)
"""How strings of large files are held."""


@dataclass(frozen=True)
class Wanted:
    """The columns to read; what follows from them is worked out once, not for each of thousands of files."""

    columns: tuple[Column, ...]

    @cached_property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])

    def names(self, *, of_score: bool) -> list[str]:
        return [column.name for column in self.columns if column.of_score == of_score]


def wanted_columns(columns: Iterable[str] | None) -> Wanted:
    """The score columns, those run-level columns (None: all), and what the reader itself needs."""
    always = {"record_id", "run_id", "attempt", "status", "schema_version", "schema_meaning", "seed"}
    always |= {"task", "protocol", "data_digest", "precision"}
    known = set(schema_module.run_columns())
    names = known if columns is None else {*columns, *always}
    if strange := sorted(names - known):
        raise UserError("no such column of a record", field="columns", value=strange[0])
    return Wanted(tuple(c for c in schema_module.COLUMNS if c.of_score or c.name in names))


def conform(table: pa.Table, wanted: Wanted) -> pa.Table | str:
    """The wanted columns in order and with their types (strings may stay dictionary-encoded), or what is wrong."""
    if table.schema.equals(wanted.schema):
        return table
    if "schema_version" not in table.column_names:
        return "not a record: it has no column 'schema_version'"
    version = pc.min(table["schema_version"]).as_py()
    if type(version) is not int:
        return "its schema_version is not a number"
    arrays = []
    for column in wanted.columns:
        if column.name in table.column_names:
            array = table[column.name]
            if _kind(array.type) != _kind(column.type):
                return f"column {column.name!r} has type {array.type}, not {column.type}"
            arrays.append(array.cast(ENCODED if pa.types.is_dictionary(array.type) else column.type))
        elif column.since > version:
            arrays.append(pa.repeat(pa.scalar(column.default, column.type), len(table)))
        else:
            return f"it has no column {column.name!r}"
    if any(pa.types.is_dictionary(array.type) for array in arrays):
        return pa.table(arrays, names=wanted.schema.names)
    return pa.table(arrays, schema=wanted.schema)


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "number"
    if pa.types.is_timestamp(kind):
        return f"time in {kind.tz}"
    return str(kind)


def fault_of(table: pa.Table) -> str | None:
    """What makes this table's content unusable, or None."""
    for column in schema_module.COLUMNS:
        if column.name not in table.column_names:
            continue
        array = table[column.name]
        if array.null_count and not column.nullable:
            return f"column {column.name!r} is null in some rows"
        if column.type == schema_module.TEXT and (fault := _text_fault(column.name, array)):
            return fault
    if "schema_meaning" in table.column_names:
        meaning = pc.max(table["schema_meaning"]).as_py()
        if meaning is not None and meaning > schema_module.SCHEMA_MEANING:
            return f"written by a newer version of subnetbench (schema meaning {meaning})"
    return None


def _text_fault(name: str, array: pa.ChunkedArray) -> str | None:
    limit = MAX_TEXT_BYTES if name.endswith("_json") else MAX_NAME_BYTES
    for chunk in array.chunks:
        texts = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        longest = pc.max(pc.binary_length(texts)).as_py()
        if longest is not None and longest > limit:
            return f"column {name!r} holds a text of {longest:,} bytes (allowed: {limit:,})"
        try:
            texts.validate(full=True)
        except pa.ArrowInvalid:
            return f"column {name!r} holds text that is not UTF-8"
    return None
