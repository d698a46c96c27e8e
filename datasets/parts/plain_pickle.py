"""Pickles of plain values, read so that nothing else can come out of them.

Some data sets are published as pickles only. A pickle is a program: this reader lets it build dictionaries, lists,
tuples, sets, numbers and strings, and arrays of numbers, which become lists. Whatever else it asks for is refused
before it is looked up.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from subnetbench.datasets.parts.annotations import read_bytes
from subnetbench.harness.data import DataError

MOST_BYTES = 100_000_000
_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"}


def read_plain_pickle(path: Path) -> Any:
    """The value in a pickle of plain values.

    Raises:
        DataError: For anything else.
    """
    content = read_bytes(path, MOST_BYTES)
    try:
        # Python 2 wrote text and the bytes of arrays alike as its `str`.
        value = _PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise DataError(f"{path} is refused: {error}") from None
    except Exception as error:  # a damaged pickle can make the reader raise anything
        raise DataError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    _require_plain(value, path)
    return value


class _Kind:
    """Stands in for `numpy.dtype`."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *flags: Any) -> None:
        if code not in _NUMBERS:
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, not of numbers")
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"


class _Numbers(list[Any]):
    """Stands in for `numpy.ndarray`: a list of the numbers."""

    __slots__ = ()

    def __init__(self, *arguments: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, content = state
        self[:] = _read(kind, content).reshape(shape, order="F" if is_fortran else "C").tolist()


def _number(kind: Any, content: Any) -> Any:
    """Stands in for `numpy.core.multiarray.scalar`."""
    return _read(kind, content)[0].item()


def _read(kind: Any, content: str | bytes) -> np.ndarray:
    if not isinstance(kind, _Kind):
        raise pickle.UnpicklingError("it holds an array of an unknown type")
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, np.dtype(kind.order + kind.code))


def _encode(text: str, encoding: str) -> bytes:
    """Stands in for `_codecs.encode`, by which Python 3 writes bytes in old protocols."""
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stands in for `bytes`, by whose call Python 3 writes no bytes at all in old protocols."""
    return b""


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Numbers,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    **{
        (f"numpy.{package}.multiarray", name): stand_in
        for package in ("core", "_core")
        for name, stand_in in (("_reconstruct", _Numbers), ("scalar", _number))
    },
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only plain values may be in it") from None


def _require_plain(value: Any, path: Path) -> None:
    """Raise `DataError` if a stand-in, or anything else that is not plain, is among the values."""
    waiting, seen = [value], set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict | list | tuple | set | frozenset):
            if id(item) not in seen:
                seen.add(id(item))
                waiting.extend([*item.keys(), *item.values()] if isinstance(item, dict) else item)
        elif not (item is None or isinstance(item, bool | int | float | str | bytes)):
            raise DataError(f"{path} is refused: it holds a {type(item).__name__}, and only plain values may be in it")
