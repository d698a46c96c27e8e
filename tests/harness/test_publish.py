"""The folder to share: complete, without anything that must not be shared, and uploaded only on request."""

import base64
import gzip
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import SubnetbenchError, UserError
from subnetbench.harness.leaderboard import Leaderboard
from subnetbench.harness.records import Score
from subnetbench.harness.report.publish import Publication, upload, write_publication


@pytest.fixture(scope="module")
def results(samples: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of two methods, a failed run, and a run that starts from a file in somebody's home."""
    folder = tmp_path_factory.mktemp("publish") / "results"
    written = samples.Results(folder)
    for method, value in (("dense", 0.5), ("edge_popup", 0.45)):
        for seed in range(3):
            scores = [Score(metric="top1", value=value + seed / 100, split="test", variant="full")]
            written.run([*scores, *samples.costs("full", 0.5)], method=method, seed=seed, log="private words")
    written.run([], status="failed", error_kind="nan", error="the loss is nan", seed=7)
    inputs = {"inputs": {"teacher": {"file": "/home/somebody/teacher.safetensors", "sha256": "00"}}}
    written.run([Score(metric="top1", value=0.4, split="test", variant="full")], method="student", spec=inputs)
    return folder


@pytest.fixture(scope="module")
def folder(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("publication") / "folder"
    write_publication(results, out, Publication("Three | seeds", "cc-by-4.0"))
    return out


def test_everything_is_there_and_nothing_else(folder: Path) -> None:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    figures = {name for name in names if name.startswith("figures/")}
    assert names - figures == {"README.md", "leaderboard.parquet", "records.parquet", "report.html"}
    assert figures
    assert {Path(name).suffix for name in figures} == {".pdf", ".png"}


def test_the_leaderboard_can_be_computed_from_the_records(folder: Path) -> None:
    frame = pd.read_parquet(folder / "leaderboard.parquet")
    again = Leaderboard(folder / "records.parquet").frame()
    shared = [name for name in frame.columns if name != "run_ids"]
    pd.testing.assert_frame_equal(frame[shared], again[shared], check_dtype=False)


def test_machines_paths_and_logs_stay_at_home(folder: Path) -> None:
    columns = pq.read_table(folder / "records.parquet").to_pydict()
    assert set(columns["host"]) == {"machine 1"}
    assert any('"file":"teacher.safetensors"' in spec for spec in columns["spec_json"])
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"machine-one" not in content
            assert b"/home/somebody" not in content
            assert b"private words" not in content
    packed = re.search(rb'id="content">([^<]+)<', (folder / "report.html").read_bytes())
    assert packed
    content = gzip.decompress(base64.b64decode(packed[1]))
    assert b'"history"' in content
    for private in (b"machine-one", b"/home/somebody", b"private words"):
        assert private not in content


def test_the_card_says_how_of_what_and_under_which_licence(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["license"] == "cc-by-4.0"
    assert {config["data_files"] for config in card["configs"]} == {"leaderboard.parquet", "records.parquet"}
    assert "# Three \\| seeds" in body
    assert "7 finished runs" in body
    assert "Apache-2.0, MIT and CC-BY-4.0 by vendor" in body  # the licence of the data set
    assert "groups of unseen concepts (data digest `0123456789abcdef`)" in body
    assert "1 run failed: counted, not averaged" in body
    assert "Ramanujan" in body  # the paper of a method
    assert "student: not known to this installation" in body


def test_no_artwork_is_in_it(folder: Path) -> None:
    """All pictures are figures that were drawn here; pages and cards embed none."""
    for path in (folder / "report.html", folder / "README.md"):
        text = path.read_text()
        assert "<img" not in text
        assert "data:image" not in text
        assert "![" not in text


def test_a_folder_that_holds_something_is_left_alone(results: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="new or empty"):
        write_publication(results, tmp_path)


class StubHub:
    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.error = error

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create", {"repo_id": repo_id, **options}))
        if self.error:
            raise self.error

    def upload_folder(self, **options: Any) -> None:
        self.calls.append(("upload", options))


def test_an_upload_makes_a_private_data_set_of_exactly_this_folder(folder: Path) -> None:
    hub = StubHub()
    assert upload(folder, "owner/name", hub=hub) == "https://huggingface.co/datasets/owner/name"
    assert [name for name, _ in hub.calls] == ["create", "upload"]
    (_, created), (_, uploaded) = hub.calls
    assert created == {"repo_id": "owner/name", "repo_type": "dataset", "private": True, "exist_ok": True}
    assert uploaded["folder_path"] == str(folder)
    assert (uploaded["repo_id"], uploaded["repo_type"]) == ("owner/name", "dataset")


def test_calls_fit_the_real_client() -> None:
    """The stub cannot know it: the client has these methods with these arguments."""
    import inspect

    from huggingface_hub import HfApi

    hub = StubHub()
    upload(Path("folder"), "owner/name", hub=hub)
    for method, (_, options) in zip((HfApi.create_repo, HfApi.upload_folder), hub.calls, strict=True):
        inspect.signature(method).bind(None, **options)


def test_a_hub_that_refuses_is_one_message(folder: Path) -> None:
    with pytest.raises(SubnetbenchError, match=r"upload to owner/name failed: OSError: 401"):
        upload(folder, "owner/name", hub=StubHub(OSError("401")))


def test_nothing_is_uploaded_unless_asked(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    hub = StubHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    runner = CliRunner()
    done = runner.invoke(app, ["publish", str(results), "--out", str(tmp_path / "local")])
    assert done.exit_code == 0, done.output
    assert hub.calls == []
    done = runner.invoke(app, ["publish", str(results), "--out", str(tmp_path / "b"), "--upload", "owner/name"])
    assert isinstance(done.exception, UserError)
    assert "under which licence" in str(done.exception)
    assert hub.calls == []
    words = ["--upload", "owner/name", "--licence", "cc-by-4.0"]
    done = runner.invoke(app, ["publish", str(results), "--out", str(tmp_path / "c"), *words])
    assert done.exit_code == 0, done.output
    assert [name for name, _ in hub.calls] == ["create", "upload"]
