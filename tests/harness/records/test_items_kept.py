"""Scores by item go with their records: merged, published, cleaned up; and runs of the command line write them."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from subnetbench.harness import api
from subnetbench.harness.cli.app import app
from subnetbench.harness.leaderboard import Leaderboard
from subnetbench.harness.records import RunRecord, Score, read_records, write_record
from subnetbench.harness.records.item_checks import differing_items
from subnetbench.harness.records.items import ItemSet, ItemValues
from subnetbench.harness.records.items_file import items_of, items_path, read_items, write_items

MakeRecord = Callable[..., RunRecord]
ITEMS = ItemSet("image", np.arange(20), np.zeros(20), ("a",), np.arange(20))
TINY = "network=conv2,image_size=8,epochs=1,limit_steps=2"


@pytest.fixture
def results(tmp_path: Path, make_record: MakeRecord) -> Path:
    """Three seeds with scores by item."""
    folder = tmp_path / "results"
    for seed in range(3):
        values = ItemValues(ITEMS, (np.random.default_rng(seed).random(20) < 0.6).astype(float))
        score = Score(metric="top1", value=values.mean, split="test", variant="full", items=values)
        record = make_record(f"run{seed}", seed=seed, scores=[score])
        digest = write_items(folder, record.record_id, items_of([score])).digest
        write_record(folder, replace(record, items_digest=digest))
    return folder


def intervals(path: Path) -> list[tuple[str, float]]:
    frame = Leaderboard(path).frame(metrics=["top1"])
    return [(str(line.interval), float(line.high)) for line in frame.itertuples()]  # type: ignore[arg-type]


def test_merging_keeps_them(results: Path, tmp_path: Path):
    before = intervals(results)
    assert before[0][0] == "joint"
    (merged,) = api.merge(results)
    assert (merged.items, merged.items_lacking) == (3, 0)
    assert intervals(results) == before
    assert api.validate(results).items_absent == 0
    out = tmp_path / "board" / "all.parquet"
    assert api.merge(results, out)[0].items == 3
    assert intervals(out) == before
    assert len(list((results / "items").glob("*"))) == 3, "the originals stay"


def test_merging_says_what_is_lacking(results: Path, tmp_path: Path):
    first, second, _ = sorted((results / "items").glob("*"))
    first.unlink()
    second.write_bytes(b"another content")
    output = CliRunner().invoke(app, ["merge", str(results), "--out", str(tmp_path / "all.parquet")]).output
    assert "1 files of outcomes by item belong to it, 2 more are absent or not what is stated" in output
    assert len(list((tmp_path / "items").glob("*"))) == 1


def test_a_publication_has_them(results: Path, tmp_path: Path):
    pytest.importorskip("matplotlib")
    files = api.publish(results, tmp_path / "publication").files
    assert sum(path.parent.name == "items" for path in files) == 3
    assert intervals(tmp_path / "publication" / "records.parquet") == intervals(results)
    assert api.validate(tmp_path / "publication" / "records.parquet").items_absent == 0
    card = " ".join((tmp_path / "publication" / "README.md").read_text().split())
    assert "over seeds and test items together" in card
    content = api.report(results, tmp_path / "report.html").content
    assert content.rows[0].cells["top1"].interval == "joint"
    assert any("over seeds and test items together" in note for note in content.notes)
    command = ["report", str(results), "--interval", "seeds", "--out", str(tmp_path / "seeds.html")]
    assert CliRunner().invoke(app, command).exit_code == 0
    over_seeds = api.report(results, tmp_path / "report.html", interval="seeds").content.rows[0].cells["top1"]
    assert over_seeds.interval == "seeds"
    assert over_seeds.half is not None
    assert content.rows[0].cells["top1"].half > over_seeds.half


def test_clean_removes_what_belongs_to_no_record(results: Path):
    orphan = write_items(results, "orphan", items_of([])).path
    assert api.clean(results) == [], "a run may be about to write its record"
    os.utime(orphan, (0, 0))
    assert [each.path for each in api.clean(results, dry_run=True)] == [orphan]
    (results / "records" / "broken.parquet").write_bytes(b"?")
    assert api.clean(results) == [], "it may belong to a record that cannot be read"
    (results / "records" / "broken.parquet").unlink()
    api.clean(results)
    assert len(list((results / "items").glob("*"))) == 3
    CliRunner().invoke(app, ["clean", str(results), "--items"])
    assert not list((results / "items").glob("*"))
    assert intervals(results)[0][0] == "seeds"


def test_a_run_keeps_them_unless_told_otherwise(tmp_path: Path):
    runner = CliRunner()
    command = ["run", "edge_popup", "emoji", "--set", TINY, "--tracker", "none", "--out", str(tmp_path)]
    assert runner.invoke(app, [*command, "--no-items", "--seed", "1"]).exit_code == 0
    assert not (tmp_path / "items").exists()
    assert runner.invoke(app, command).exit_code == 0
    rows = {row["seed"]: row for row in read_records(tmp_path).runs.to_pylist()}
    assert rows[1]["items_digest"] == ""
    path = items_path(rows[0]["file"], rows[0]["record_id"])
    assert path is not None
    items = read_items(path, rows[0]["items_digest"])
    assert {key[1] for key in items.values} == {"test", "validation"}
    assert {values.of.kind for values in items.values.values()} == {"image"}
    assert len({values.of.cluster.tobytes() for values in items.values.values()}) == 2
    on_test = items.values["top1", "test", "subnetwork", ""].of
    assert len(np.unique(on_test.cluster)) < len(on_test), "vendors draw the same concepts"
    assert api.validate(tmp_path).faults == ()
    assert pq.read_metadata(path).num_rows == len(items) + 2


def test_a_failed_run_leaves_none(tmp_path: Path):
    command = [
        "run",
        "dense",
        "cifar10",
        "--data-root",
        str(tmp_path),
        "--tracker",
        "none",
        "--out",
        str(tmp_path / "r"),
    ]
    assert CliRunner().invoke(app, command).exit_code == 1
    assert [row["status"] for row in read_records(tmp_path / "r").runs.to_pylist()] == ["failed"]
    assert not (tmp_path / "r" / "items").exists()


def test_outcomes_that_differ_are_counted(tmp_path: Path):
    values = np.array([0, 1] * 10, np.float64)
    files = []
    for name, own in (("a", values), ("b", np.where(np.arange(20) < 3, 1 - values, values))):
        items = items_of([Score(metric="top1", value=0.5, split="test", items=ItemValues(ITEMS, own))])
        files.append(write_items(tmp_path, name, items).path)
    assert differing_items(*files) == 3
    assert differing_items(files[0], files[0]) == 0
    assert differing_items(files[0], None) is None
    assert differing_items(files[0], tmp_path / "absent.parquet") is None
