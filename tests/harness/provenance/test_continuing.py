"""What may continue: each part alone, without training anything."""

from dataclasses import replace

import pytest

from subnetbench.harness.core.errors import RunFailure
from subnetbench.harness.core.numerics import Numerics
from subnetbench.harness.data.content import DataContent, SplitContent
from subnetbench.harness.data.described import Contents
from subnetbench.harness.data.items import Items, changes
from subnetbench.harness.execution.continuing import UNKNOWN_CODE, begun_on, continued
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.provenance import CodeRead, Environment, FilesRead, InputContent, Provenance
from subnetbench.harness.runs.state_file import save_state

CONTENT = DataContent({"train": SplitContent(2, "aa"), "test": SplitContent(1, "bb")})
BEFORE = Provenance(
    data=CONTENT,
    files=FilesRead({}, {"weights of x": "w1"}, {"teacher": InputContent("t", "w1", "l1")}),
    code=CodeRead("m", "d", "h", {"subnetbench.methods.dense": "m"}),
    numerics=Numerics("cpu", "", "highest", False, False, False, 1, None),
    environment=Environment(libraries={"torch": "2.11"}),
)


def go_on(tmp_path, now=BEFORE, before=BEFORE, code="refuse", content=CONTENT):
    return continued(before, now, Contents(content), tmp_path, code)


def test_the_same_continues(tmp_path):
    assert go_on(tmp_path) == BEFORE


@pytest.mark.parametrize(
    ("changes", "reason", "said"),
    [
        ({"files": replace(BEFORE.files, installed={"weights of x": "w2"})}, "files-changed", "weights of x: w1 -> w2"),
        (
            {"files": replace(BEFORE.files, inputs={"teacher": InputContent("t", "w2", "l1")})},
            "files-changed",
            "input teacher: t w1 -> t w2",
        ),
        (
            {"code": replace(BEFORE.code, method="n", modules={"subnetbench.methods.dense": "n"})},
            "code-changed",
            "dense",
        ),
        ({"numerics": replace(BEFORE.numerics, device="cuda")}, "numerics-changed", "device: cpu -> cuda"),
    ],
)
def test_another_part_does_not(tmp_path, changes, reason, said):
    with pytest.raises(RunFailure, match=said) as raised:
        go_on(tmp_path, replace(BEFORE, **changes))
    assert raised.value.reason == reason
    assert "--rerun" in str(raised.value)


def test_other_data_are_named_by_both_digests(tmp_path):
    other = DataContent({**CONTENT.splits, "test": SplitContent(1, "cc")})
    with pytest.raises(RunFailure, match="test was 1 items, digest bb, is 1 items, digest cc"):
        go_on(tmp_path, content=other)


def test_other_libraries_are_said(tmp_path, caplog):
    now = replace(BEFORE, environment=Environment(libraries={"torch": "2.12"}))
    assert go_on(tmp_path, now) == now
    assert "torch: 2.11 -> 2.12" in caplog.text


def test_a_run_that_began_unknown_is_another_row(tmp_path, caplog):
    found = go_on(tmp_path, before=Provenance())
    assert found.code.resumed == (UNKNOWN_CODE,)
    assert found.code.digest != BEFORE.code.digest
    assert caplog.text.count("it is not known") == 1


def test_weights_that_were_fetched_meanwhile_are_no_other_weights(tmp_path):
    before = replace(BEFORE, files=replace(BEFORE.files, installed={}))
    assert go_on(tmp_path, before=before) == BEFORE


def test_changes_of_items_in_words():
    before = Items(["a/1", "a/2", "b/1", "b/2"], ["1", "2", "3", "4"], ["a", "a", "b", "b"])
    now = Items(["a/1", "a/3", "b/1", "b/2"], ["1", "5", "9", "4"], ["a", "a", "b", "a"])
    assert changes(before, now) == (
        "1 image added: a/3; 1 image removed: a/2; 1 image changed: b/1; 1 image in another class: b/2"
    )
    assert "captions" in changes(before, before)


def test_a_damaged_checkpoint_is_not_taken_for_one_of_an_earlier_version(tmp_path):
    folder = RunFolder(tmp_path, "run")
    assert begun_on(folder) is None
    folder.path.mkdir(parents=True)
    folder.last_checkpoint.write_bytes(b"cut off")
    assert begun_on(folder) is None
    save_state(folder.last_checkpoint, {"run_id": "run"})
    assert begun_on(folder) == Provenance()
