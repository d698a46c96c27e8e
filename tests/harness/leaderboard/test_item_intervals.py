"""Intervals of a leaderboard over seeds, over test items, and over both; and what is said where items are lacking."""

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.resampling import ClusterMean, item_variance
from subnetbench.harness.core.statistics import t_half_width
from subnetbench.harness.leaderboard import Leaderboard, matrices
from subnetbench.harness.records import Score
from subnetbench.harness.records.items import ItemSet, ItemValues
from subnetbench.harness.records.items_file import items_of, write_items

N, CLUSTER = 60, np.arange(60) // 3
ITEMS = ItemSet("image", np.arange(N), CLUSTER % 4, ("a", "b", "c", "d"), CLUSTER)


def add(folder, values, seed=0, *, variant="full", gallery="", metric="top1", stored=True, **changes):
    """A run whose score is the mean of some values by item."""
    items = ItemValues(ITEMS, np.asarray(values))
    score = Score(metric=metric, value=items.mean, split="test", variant=variant, gallery_variant=gallery, items=items)
    return add_scores(folder, [score], seed, stored=stored, primary_metric=metric, **changes)


def add_scores(folder, scores, seed, *, stored=True, **changes):
    record_id = f"{changes.get('method', 'm')}{seed}x{len(list(folder.path.glob('**/*.parquet')))}"
    digest = write_items(folder.path, record_id, items_of(scores)).digest if stored else ""
    return folder.add(scores=scores, seed=seed, record_id=record_id, items_digest=digest, **changes)


@pytest.fixture
def values():
    return (np.random.default_rng(0).random((3, N)) < 0.7).astype(float)


def leaderboard(*arguments):
    result = CliRunner().invoke(app, ["leaderboard", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def half(board):
    line = board.frame(metrics=["top1"]).iloc[0]
    return (line["high"] - line["low"]) / 2, line["interval"]


def test_three_intervals(folder, values):
    for seed, own in enumerate(values):
        add(folder, own, seed)
    over_seeds = float(t_half_width(values.mean(axis=1).std(ddof=1), 3))
    variance = item_variance([ClusterMean.of(values, CLUSTER)])[0]
    over_items = 2.093 * math.sqrt(variance)  # t with 19 degrees of freedom for 20 clusters
    assert half(Leaderboard(folder.path, interval="seeds")) == (pytest.approx(over_seeds, rel=1e-6), "seeds")
    assert half(Leaderboard(folder.path, interval="items")) == (pytest.approx(over_items, rel=1e-3), "items")
    assert half(Leaderboard(folder.path)) == (pytest.approx(math.hypot(over_seeds, over_items), rel=1e-3), "joint")
    with pytest.raises(UserError, match="known: items, joint, seeds"):
        Leaderboard(folder.path, interval="both")


def test_the_command_says_which_interval_it_prints(folder, values):
    for seed, own in enumerate(values):
        add(folder, own, seed)
    assert "over seeds and test items together" in leaderboard(folder.path)
    assert "over seeds, not over test items" in leaderboard(folder.path, "--interval", "seeds")
    assert "for the runs that there are, not over seeds" in " ".join(
        leaderboard(folder.path, "--interval", "items").split()
    )
    content = json.loads(leaderboard(folder.path, "--json"))
    assert content["interval"] == "joint"
    assert {cell["interval"] for cell in content["cells"] if cell["metric"] == "top1"} == {"joint"}
    assert ",interval," in leaderboard(folder.path, "--format", "csv").splitlines()[0]


def test_rows_without_items_have_an_interval_over_seeds_which_is_said(folder, values):
    for seed, own in enumerate(values):
        add(folder, own, seed, method="new")
        add(folder, own, seed, method="old", stored=False)
    text = " ".join(leaderboard(folder.path).split())
    assert (
        "1 row is over seeds alone, and therefore too narrow for other test items: no outcomes by item are stored"
        in text
    )
    frame = Leaderboard(folder.path).frame(metrics=["top1"])
    assert dict(zip(frame["method"], frame["interval"], strict=True)) == {"new": "joint", "old": "seeds"}
    text = " ".join(leaderboard(folder.path, "--interval", "items").split())
    assert "1 row is without an interval: no outcomes by item are stored" in text


def test_a_row_without_an_interval_is_counted(folder, values):
    for seed, own in enumerate(values):
        add(folder, own, seed, method="new")
    add(folder, values[0], 0, method="alone", stored=False)
    text = " ".join(leaderboard(folder.path).split())
    assert "1 row is without an interval: of a single seed, or no spread over seeds is known." in text


def test_a_folder_without_any_items_reads_none(folder, monkeypatch):
    folder.seeds([0.5, 0.6])
    monkeypatch.setattr("subnetbench.harness.records.item_store.read_items", lambda *_: pytest.fail("read"))
    assert "over seeds, not over test items" in leaderboard(folder.path)
    text = leaderboard(folder.path, "--interval", "items")
    assert "none of these runs has stored outcomes" in text
    assert "Intervals of costs and times at 95 % are Student t intervals over seeds" in text, "scores have none"


def test_files_that_do_not_fit_are_not_used(folder, values):
    for seed, own in enumerate(values):
        add(folder, own, seed)
    path = next((folder.path / "items").glob("*.parquet"))
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])
    text = " ".join(leaderboard(folder.path).split())
    assert "1 row is over seeds alone" in text
    assert f"{path.name}: its content is not what its record says" in text
    path.unlink()
    assert "the file of outcomes by item is not there" in " ".join(leaderboard(folder.path).split())


def test_items_that_contradict_their_record_are_not_used(folder, values):
    """The digest is right, but the mean is not the score: somebody wrote both."""
    for seed, own in enumerate(values):
        items = ItemValues(ITEMS, own)
        score = Score(metric="top1", value=0.99 - seed / 100, split="test", variant="full", items=items)
        add_scores(folder, [score], seed)
    assert "whose mean is not the value in the record" in " ".join(leaderboard(folder.path).split())


def test_seeds_on_different_items_are_not_joined(folder, values):
    add(folder, values[0], 0)
    other = ItemSet("image", np.arange(N), ITEMS.label, ITEMS.classes, np.arange(N))
    items = ItemValues(other, values[1])
    add_scores(folder, [Score(metric="top1", value=items.mean, split="test", variant="full", items=items)], 1)
    assert "its seeds were scored on different items" in " ".join(leaderboard(folder.path).split())


def test_one_seed_has_an_interval_over_items_only_on_request(folder, values):
    add(folder, values[0])
    assert half(Leaderboard(folder.path))[1] == ""
    assert half(Leaderboard(folder.path, interval="items"))[1] == "items"


def test_failed_seeds_leave_the_others(folder, values):
    for seed, own in enumerate(values[:2]):
        add(folder, own, seed)
    folder.add(None, seed=2, status="failed", error_kind="nan", method="m")
    assert half(Leaderboard(folder.path))[1] == "joint"


def test_matrices_print_the_same_intervals(folder, values):
    pairs = [("dense", "dense"), ("small", "dense"), ("small", "small")]
    for seed, own in enumerate(values):
        scores = []
        for query, gallery in pairs:
            items = ItemValues(ITEMS, own)
            scores.append(
                Score(metric="map", value=items.mean, split="test", variant=query, gallery_variant=gallery, items=items)
            )
        add_scores(folder, scores, seed, task="retrieval", primary_metric="map")
    (matrix,) = matrices(folder.path, ["map"])
    frame = Leaderboard(folder.path).frame(metrics=["map"])
    assert matrix.interval == "joint"
    assert matrix.half_width[0, 0] == pytest.approx((frame["high"] - frame["low"]).iloc[0] / 2)
    assert "± 95 % interval over seeds and test items" in matrix.table().title
    assert matrix.to_json()["interval"] == "joint"
