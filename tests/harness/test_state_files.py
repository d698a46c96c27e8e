import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subnetbench.harness.core.files import LockHeld, file_lock, publish
from subnetbench.harness.core.hashing import canonical_json, content_hash, digest_of
from subnetbench.harness.runs.state_file import BrokenStateFile, load_state, save_state

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.lists(st.integers(-5, 5), max_size=4).map(lambda v: torch.tensor(v, dtype=torch.int32)),
)
states = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.integers(0, 9), st.text(max_size=5)), inner, max_size=3),
    ),
    max_leaves=12,
)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(states)
def test_nested_states_round_trip(tmp_path, state):
    save_state(tmp_path / "state", state)
    assert same(state, load_state(tmp_path / "state"))


def test_optimizer_states_round_trip(tmp_path):
    parameter = torch.nn.Parameter(torch.randn(3, 2))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    parameter.grad = torch.randn(3, 2)
    optimizer.step()
    save_state(tmp_path / "state", optimizer.state_dict())
    fresh = torch.optim.AdamW([torch.nn.Parameter(parameter.detach().clone())], lr=0.5)
    fresh.load_state_dict(load_state(tmp_path / "state"))
    assert fresh.param_groups[0]["lr"] == 0.1
    assert torch.equal(fresh.state_dict()["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


def test_shared_and_strided_tensors_are_saved_by_value(tmp_path):
    whole = torch.arange(6.0)
    save_state(tmp_path / "state", {"a": whole, "b": whole, "c": whole[::2], "d": whole.view(2, 3).T})
    loaded = load_state(tmp_path / "state")
    assert torch.equal(loaded["c"], whole[::2])
    assert torch.equal(loaded["d"], whole.view(2, 3).T)


@pytest.mark.parametrize("damage", ["truncate", "text", "empty"])
def test_damaged_files_are_one_message(tmp_path, damage):
    path = tmp_path / "state"
    save_state(path, {"a": torch.arange(1000.0)})
    content = path.read_bytes()
    path.write_bytes({"truncate": content[: len(content) // 2], "text": b"hello world", "empty": b""}[damage])
    with pytest.raises(BrokenStateFile, match="truncated or not a state file"):
        load_state(path)


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "state"
    save_state(path, {"a": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_state(path, {"a": 2})
    assert load_state(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["state"]


def test_objects_are_refused(tmp_path):
    with pytest.raises(TypeError, match="/a: a object cannot be saved"):
        save_state(tmp_path / "state", {"a": object()})


def test_a_lock_is_held_by_one_and_is_free_afterwards(tmp_path):
    with (
        file_lock(tmp_path / "lock", 0),
        pytest.raises(LockHeld, match="locked by another process"),
        file_lock(tmp_path / "lock", 0.2),
    ):
        pass
    with file_lock(tmp_path / "lock", 0):
        pass


def test_files_are_published_once_where_they_must_not_be_written_over(tmp_path):
    path = tmp_path / "new" / "file"
    publish(path, lambda file: file.write(b"first"), overwrite=False)
    with pytest.raises(FileExistsError):
        publish(path, lambda file: file.write(b"second"), overwrite=False)
    assert path.read_bytes() == b"first"
    publish(path, lambda file: file.write(b"third"), overwrite=True)
    assert path.read_bytes() == b"third"
    assert os.listdir(path.parent) == ["file"]


def test_hashes_are_what_run_ids_and_records_of_earlier_versions_have():
    value = {"b": [1, 2.5, None], "a": "é"}
    assert content_hash(value, 10) == "84afbf1d48"
    assert content_hash(value, 16, strict=False) == "84afbf1d4853005f"
    with pytest.raises(ValueError, match="JSON compliant"):
        content_hash({"a": float("nan")}, 10)
    assert canonical_json({"a": float("nan"), "b": Path("x")}, strict=False) == '{"a":NaN,"b":"x"}'
    assert digest_of(torch.arange(3.0), "x", 1) == digest_of(np.arange(3, dtype=np.float32), "x", 1)
