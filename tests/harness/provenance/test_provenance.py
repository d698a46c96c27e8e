"""What a run stands on, as data: read back as it was written, and compared part by part."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnetbench.harness.core.numerics import Numerics
from subnetbench.harness.data.content import DataContent, SplitContent
from subnetbench.harness.runs.differences import EFFECTS, differences, unknown
from subnetbench.harness.runs.provenance import (
    CodeRead,
    Environment,
    FilesRead,
    InputContent,
    Provenance,
)

NUMERICS = Numerics("cpu", "", "highest", False, False, False, 1, None)
WHOLE = Provenance(
    data=DataContent({"train": SplitContent(10, "aa"), "test": SplitContent(5, "bb")}),
    files=FilesRead({"clip_path": "cc"}, {}, {"teacher": InputContent("dense-x-s0-1", "dd", "ee")}),
    code=CodeRead("m", "d", "h", {"subnetbench.methods.dense": "ff"}),
    numerics=NUMERICS,
    environment=Environment("a GPU", "a CPU", 2, "550", "12.8", "9", {"torch": "2.11"}),
)


def test_read_back_as_written():
    assert Provenance.from_json(json.loads(json.dumps(WHOLE.to_json()))) == WHOLE
    assert Provenance.from_text(WHOLE.columns.provenance_json) == WHOLE.brief()
    assert len(WHOLE.columns.provenance_json) < 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*EFFECTS, "version"]), JSON) | JSON)
def test_whatever_a_file_says_is_read_or_unknown(plain):
    found = Provenance.from_json(plain)
    assert differences(found, found) == []


def test_what_was_written_before_is_unknown_and_differs_from_nothing():
    old = Provenance.from_text("")
    assert old == Provenance()
    assert differences(old, WHOLE) == []
    assert unknown(old, WHOLE) == list(EFFECTS)
    assert old.columns.code_digest == old.columns.files_digest == old.columns.numerics == old.lineage == ""


@pytest.mark.parametrize(
    ("other", "part", "name"),
    [
        (replace(WHOLE, data=DataContent({**WHOLE.data.splits, "test": SplitContent(6, "bc")})), "data", "test"),
        (replace(WHOLE, files=FilesRead({"clip_path": "00"}, {}, WHOLE.files.inputs)), "files", "clip_path"),
        (replace(WHOLE, files=FilesRead(WHOLE.files.files)), "files", "input teacher"),
        (replace(WHOLE, code=replace(WHOLE.code, method="n")), "code", "method"),
        (replace(WHOLE, numerics=replace(NUMERICS, device="cuda")), "numerics", "device"),
        (replace(WHOLE, environment=replace(WHOLE.environment, libraries={"torch": "3"})), "environment", "torch"),
    ],
)
def test_each_difference_is_named(other, part, name):
    (found,) = differences(WHOLE, other)
    assert (found.part, found.name, found.effect) == (part, name, EFFECTS[part])
    assert differences(WHOLE, WHOLE) == []
    assert (other.lineage == WHOLE.lineage) == (part == "environment")


def test_files_digests_are_the_same_for_seeds_of_an_input():
    """The weights of a teacher differ from seed to seed; rows are averaged over seeds."""
    one = FilesRead({}, {}, {"teacher": InputContent("dense-x-s0-1", "dd", "ee")})
    assert one.digest == FilesRead({}, {}, {"teacher": InputContent("dense-x-s1-2", "d1", "ee")}).digest
    assert one.digest != FilesRead({}, {}, {"teacher": InputContent("dense-x-s0-1", "dd", "e1")}).digest
    assert FilesRead().digest == "none"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "cpu, fp32"),
        ({"device": "cuda", "deterministic": True}, "cuda, fp32, deterministic"),
        ({"device": "cuda", "convolution_tf32": True}, "cuda, tf32 (convolutions only)"),
        ({"device": "cuda", "matmul": "high", "convolution_tf32": True}, "cuda, tf32"),
        ({"autocast": "bfloat16", "processes": 2, "micro_batch": 8}, "cpu, bf16, 2 processes, micro-batches of 8"),
    ],
)
def test_numerics_in_words(changes, text):
    assert str(replace(NUMERICS, **changes)) == text


def test_a_file_with_a_damaged_part_is_no_whole_provenance():
    plain = WHOLE.to_json()
    assert Provenance.from_whole(plain) == WHOLE
    assert Provenance.from_whole({"version": 1, "code": plain["code"]}) == Provenance(code=WHOLE.code)
    for damaged in ({}, {"version": 1}, plain | {"code": {"method": "a"}}, plain | {"data": 3}):
        assert Provenance.from_whole(damaged) is None
