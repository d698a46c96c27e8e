"""Pickles of plain values are read; whatever else they ask for is refused before it happens."""

import os
import pickle

import numpy as np
import pytest

from subnetbench.datasets.parts.plain_pickle import read_plain_pickle
from subnetbench.harness.core.errors import DataError

PLAIN = {
    "imlist": ["a", "ü"],
    "gnd": [{"bbx": [1.5, -2.0], "easy": (1, 2), "none": None, "yes": True, "big": 2**70}],
    3: {4, 5},
    "frozen": frozenset([1]),
    "bytes": b"\x00\xff",
}


@pytest.fixture
def read(tmp_path):
    def read_content(content: bytes):
        (tmp_path / "a.pkl").write_bytes(content)
        return read_plain_pickle(tmp_path / "a.pkl")

    return read_content


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_out_as_they_went_in(read, protocol):
    value = {name: item for name, item in PLAIN.items() if protocol > 3 or name not in (3, "frozen")}
    assert read(pickle.dumps(value, protocol=protocol)) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL))
@pytest.mark.parametrize("kind", ["<i8", ">i4", "u2", "f4", "<f8", "?", "i1"])
def test_arrays_come_out_as_lists(read, protocol, kind):
    array = np.arange(6).reshape(2, 3).astype(kind)
    content = pickle.dumps([array, np.asfortranarray(array), array[0, 1], array[:0]], protocol=protocol)
    assert read(content) == [array.tolist(), array.tolist(), array[0, 1].item(), []]


def test_python_2_wrote_bytes_for_text(read):
    # {'imlist': ['all_souls'], 'easy': array([3, 4])} as Python 2 wrote it with protocol 2.
    content = (
        b"\x80\x02}q\x00(U\x06imlistq\x01]q\x02U\tall_soulsq\x03aU\x04easyq\x04cnumpy.core.multiarray\n_reconstruct\n"
        b"q\x05cnumpy\nndarray\nq\x06K\x00\x85q\x07U\x01bq\x08\x87q\tRq\n(K\x01K\x02\x85q\x0bcnumpy\ndtype\nq\x0c"
        b"U\x02i8q\rK\x00K\x01\x87q\x0eRq\x0f(K\x03U\x01<q\x10NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x11b\x89"
        b"U\x10\x03\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00q\x12tq\x13bu."
    )
    assert read(content) == {"imlist": ["all_souls"], "easy": [3, 4]}


class Harmful:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_called(read, tmp_path, protocol):
    marker = tmp_path / "called"
    for harmful in (
        Harmful(os.mkdir, str(marker)),
        Harmful(os.system, f"touch {marker}"),
        Harmful(eval, f"open({str(marker)!r}, 'w')"),
        Harmful(getattr, "a", "upper"),
        Harmful(np.load, str(marker)),
    ):
        with pytest.raises(DataError, match="only plain values may be in it"):
            read(pickle.dumps({"gnd": [harmful]}, protocol=protocol))
        assert not marker.exists()


def test_objects_and_arrays_of_objects_are_refused(read):
    for value in (
        np.array([{}, 1], object),
        np.array(["a"]),
        np.array([(1, 2.0)], "i4,f4"),
        np.dtype("i4"),
        np.ndarray,
    ):
        with pytest.raises(DataError):
            read(pickle.dumps([value]))


def test_persistent_ids_extensions_and_rubbish_are_refused(read):
    whole = pickle.dumps(PLAIN)
    for content in (b"", b"P1\n.", b"\x80\x02\x82\x01.", b"\x80\xff.", whole[:-1], whole[10:], b"a" * 1000):
        with pytest.raises(DataError):
            read(content)


def test_values_that_hold_themselves_or_share_much(read):
    cycle = []
    cycle.append(cycle)
    assert read(pickle.dumps(cycle))[0][0] is not None
    shared = [1]
    for _ in range(60):
        shared = [shared, shared]
    assert len(read(pickle.dumps(shared))) == 2


def test_a_file_that_is_too_long(tmp_path, monkeypatch):
    from subnetbench.datasets.parts import plain_pickle

    monkeypatch.setattr(plain_pickle, "MOST_BYTES", 10)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([0] * 100))
    with pytest.raises(DataError, match="too many"):
        read_plain_pickle(tmp_path / "a.pkl")
