import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.hashing import text_hash
from subnetbench.harness.leaderboard import Leaderboard, View, render
from subnetbench.harness.leaderboard.notes import notes
from subnetbench.harness.leaderboard.trace import trace
from subnetbench.harness.records import Score
from subnetbench.harness.records.read import read_records


def _notes(board: Leaderboard) -> str:
    return "\n".join(notes(board, board.rows))


def test_mean_spread_and_interval_agree_with_scipy(folder: Any) -> None:
    values = [0.51, 0.47, 0.58, 0.52]
    folder.seeds(values)
    (line,) = Leaderboard(folder.path).frame(metrics=["top1"]).to_dict("records")
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert line["mean"] == pytest.approx(np.mean(values))
    assert line["std"] == pytest.approx(np.std(values, ddof=1))
    assert (line["low"], line["high"]) == pytest.approx((low, high))
    assert (line["seeds"], line["rank"]) == (4, 1)
    low, high = stats.t.interval(0.8, 3, np.mean(values), stats.sem(values))
    (line,) = Leaderboard(folder.path, confidence=0.8).frame(metrics=["top1"]).to_dict("records")
    assert (line["low"], line["high"]) == pytest.approx((low, high))


def test_one_seed_has_no_interval(folder: Any) -> None:
    folder.add(0.5)
    board = Leaderboard(folder.path)
    (line,) = board.frame(metrics=["top1"]).to_dict("records")
    assert line["mean"] == 0.5
    assert np.isnan([line["std"], line["low"], line["high"]]).all()
    assert "1 row of a single seed" in _notes(board)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"data_digest": "d2"}, "data digest (d1, d2)"),
        (
            {"protocol": "subgroups of unseen concepts", "data_digest": "d2"},
            "protocol (groups of unseen concepts, subgroups of unseen concepts); data digest (d1, d2)",
        ),
        ({"budget": "9 epochs"}, "budget (3 epochs, 9 epochs)"),
        ({"preset": "paper"}, "preset (default, paper)"),
        ({"tuned": True}, "tuned or not (False, True)"),
        ({"config": {"config": {"sparsity": 0.9}}}, "config (sparsity=0.5, sparsity=0.9)"),
    ],
)
def test_rows_are_not_mixed_and_the_reason_is_told(folder: Any, change: dict[str, Any], word: str) -> None:
    folder.seeds([0.1, 0.2, 0.3])
    folder.seeds([0.7, 0.8, 0.9], **change)
    board = Leaderboard(folder.path)
    assert sorted(board.frame(metrics=["top1"])["mean"]) == pytest.approx([0.2, 0.8])
    assert f"not averaged together, because these differ: {word}" in _notes(board)


def test_other_schema_meanings_splits_and_variants_are_rows_of_their_own(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.add(0.1)
    monkeypatch.setattr("subnetbench.harness.records.schema.SCHEMA_MEANING", 2)
    folder.add(0.2)
    folder.add(scores=[folder.top1(0.3, variant="half"), folder.top1(0.4, split="validation")], seed=7)
    board = Leaderboard(folder.path)
    frame = board.frame(metrics=["top1"], splits=None)
    found = {(r["schema_meaning"], r["split"], r["variant"]): r["mean"] for r in frame.to_dict("records")}
    assert found == {
        (1, "test", "full"): 0.1,
        (2, "test", "full"): 0.2,
        (2, "test", "half"): 0.3,
        (2, "validation", "full"): 0.4,
    }
    assert "schema meaning (1, 2)" in _notes(board)
    assert set(board.frame(metrics=["top1"])["split"]) == {"test"}
    assert set(frame["rank"]) == {0}  # a single seed each


def test_seed_order_and_folder_order_change_nothing(folder: Any, other_folder: Any) -> None:
    folder.seeds([0.1, 0.2])
    other_folder.add(0.9, seed=2)
    forward = Leaderboard([folder.path, other_folder.path]).frame()
    assert forward.equals(Leaderboard([other_folder.path, folder.path, folder.path]).frame())
    assert forward["seeds"].max() == 3


def test_the_latest_finished_attempt_counts(folder: Any) -> None:
    folder.add(0.1, run_id="same")
    folder.add(0.2, run_id="same")
    folder.add(None, run_id="same", status="failed", error_kind="nan", error="NaN loss")
    folder.add(0.4, run_id="other", seed=1)
    board = Leaderboard(folder.path)
    (line,) = board.frame(metrics=["top1"]).to_dict("records")
    assert (line["mean"], line["seeds"], line["failed"]) == (pytest.approx(0.3), 2, 0)
    assert line["run_ids"] == ("same", "other")
    assert "2 attempts superseded" in _notes(board)
    assert len(board.failures()) == 0


def test_unfinished_runs_are_counted_and_not_averaged(folder: Any) -> None:
    folder.seeds([0.4, 0.6])
    for i, status in enumerate(("failed", "failed", "pruned", "partial")):
        folder.add(0.99, seed=10 + i, status=status, error_kind="killed", error="gone\nsecond line")
    board = Leaderboard(folder.path)
    (line,) = board.frame(metrics=["top1"]).to_dict("records")
    assert line["mean"] == pytest.approx(0.5)
    assert (line["seeds"], line["failed"], line["pruned"], line["partial"]) == (2, 2, 1, 1)
    assert set(board.failures()["error"]) == {"gone"}
    assert "2 runs failed: counted, not averaged." in _notes(board)


def test_a_run_that_failed_before_it_knew_its_data_counts_with_its_config(folder: Any) -> None:
    folder.seeds([0.4, 0.6])
    early = {"data_digest": "", "protocol": "", "budget": "", "status": "failed"}
    folder.add(None, seed=5, **early)
    folder.add(None, seed=5, method="aslp", **early)
    board = Leaderboard(folder.path)
    assert board.frame(metrics=["top1"])["failed"].tolist() == [1]
    assert board.rows.set_index("method")["failed"].to_dict() == {"edge_popup": 1, "aslp": 1}
    # With two data sets of finished runs nobody can say which of them it was for.
    folder.add(0.5, data_digest="d2")
    assert Leaderboard(folder.path).frame(metrics=["top1"])["failed"].tolist() == [0, 0]


def test_trials_of_a_search_are_left_out_and_counted(folder: Any) -> None:
    folder.add(0.9, study="s", trial=3, seed=1)
    folder.add(0.5, tuned=True)
    board = Leaderboard(folder.path)
    assert board.frame(metrics=["top1"])["mean"].tolist() == [0.5]
    assert "1 trial of searches left out" in _notes(board)
    assert sorted(Leaderboard(folder.path, trials=True).frame(metrics=["top1"])["mean"]) == [0.5, 0.9]


def test_values_that_are_not_finite_are_left_out_and_counted(folder: Any) -> None:
    folder.seeds([0.5, float("nan"), float("inf"), 0.7])
    board = Leaderboard(folder.path)
    (line,) = board.frame(metrics=["top1"]).to_dict("records")
    assert (line["mean"], line["seeds"]) == (pytest.approx(0.6), 2)
    assert "2 values not finite" in _notes(board)


def test_a_value_stated_twice_counts_once(folder: Any) -> None:
    folder.add(scores=[folder.top1(0.3), folder.top1(0.9)])
    board = Leaderboard(folder.path)
    assert board.frame(metrics=["top1"])["mean"].tolist() == [0.3]
    assert "1 value stated twice" in _notes(board)


def test_costs_belong_to_the_variant_and_the_run(folder: Any) -> None:
    scores = [
        *(folder.top1(value, variant) for variant, value in (("full", 0.9), ("half", 0.8))),
        *(Score(metric="sparsity", value=v, variant=n) for n, v in (("full", 0.0), ("half", 0.5))),
        Score(metric="parameters", value=100, variant="full"),
    ]
    folder.add(scores=scores, wall_seconds=30.0)
    folder.add(scores=scores, wall_seconds=50.0, seed=1)
    frame = Leaderboard(folder.path).frame(metrics=["top1", "sparsity", "parameters", "wall_seconds"])
    found = {(r["variant"], r["metric"]): (r["mean"], r["seeds"]) for r in frame.to_dict("records")}
    assert found == {
        ("full", "top1"): (0.9, 2),
        ("full", "sparsity"): (0.0, 2),
        ("full", "parameters"): (100.0, 2),
        ("full", "wall_seconds"): (40.0, 2),
        ("half", "top1"): (0.8, 2),
        ("half", "sparsity"): (0.5, 2),
        ("half", "wall_seconds"): (40.0, 2),
    }


def test_retrieval_rows_are_pairs_of_variants(folder: Any) -> None:
    pairs = [("sub", "full", 0.3), ("full", "full", 0.6), ("sub", "sub", 0.2)]
    scores = [Score(metric="recall_at_1", value=v, split="test", variant=q, gallery_variant=g) for q, g, v in pairs]
    scores.append(Score(metric="sparsity", value=0.8, variant="sub"))
    folder.add(scores=scores, task="retrieval", primary_metric="recall_at_1")
    frame = Leaderboard(folder.path).frame(metrics=["recall_at_1"])
    assert list(zip(frame["variant"], frame["gallery_variant"], frame["mean"], strict=True)) == [
        ("full", "full", 0.6),
        ("sub", "full", 0.3),
        ("sub", "sub", 0.2),
    ]
    costs = Leaderboard(folder.path).frame(metrics=["sparsity"])
    assert set(costs["variant"]) == {"sub"}
    assert len(costs) == 2


def test_the_trivial_baseline_stands_beside_the_rows(folder: Any) -> None:
    def scores(value: float) -> list[Score]:
        trivial = [
            Score(metric="top1", value=v, split="test", variant=f"trivial:{n}")
            for n, v in (("chance", 0.1), ("pixels", 0.3))
        ]
        return [folder.top1(value), *trivial, Score(metric="loss", value=2 - value, split="test", variant="full")]

    for seed, value in enumerate((0.5, 0.51, 0.52)):
        losses = [Score(metric="loss", value=v, split="test", variant=f"trivial:{v}") for v in (2.3, 1.8)]
        folder.add(scores=[*scores(value), *losses], seed=seed)
    for seed, value in enumerate((0.1, 0.9, 0.5)):
        folder.add(scores=scores(value), method="wild", seed=seed)
    folder.add(scores=scores(0.99), method="single")
    frame = Leaderboard(folder.path).frame(metrics=["top1"]).set_index("method")
    assert set(frame["trivial"]) == {0.3}
    assert set(frame["baseline"]) == {"pixels"}
    assert frame["clears_trivial"].to_dict() == {"edge_popup": True, "wild": False, "single": False}
    losses = Leaderboard(folder.path).frame(metrics=["loss"]).set_index("method")
    assert losses["trivial"]["edge_popup"] == 1.8
    assert losses["clears_trivial"]["edge_popup"]


def test_a_row_that_leaves_a_baseline_out_is_compared_with_it(folder: Any) -> None:
    def trivial(name: str, value: float) -> Score:
        return Score(metric="top1", value=value, split="test", variant=f"trivial:{name}")

    for seed, value in enumerate((0.5, 0.51, 0.52)):
        folder.add(scores=[folder.top1(value), trivial("chance", 0.1)], seed=seed)
        folder.add(scores=[folder.top1(value), trivial("knn_pixels", 0.6)], method="honest", seed=seed)
        folder.add(scores=[folder.top1(value), trivial("chance", 0.1)], method="elsewhere", seed=seed, data_digest="d9")
    frame = Leaderboard(folder.path).frame(metrics=["top1"]).set_index("method")
    assert frame["baseline"].to_dict() == {"edge_popup": "knn_pixels", "honest": "knn_pixels", "elsewhere": "chance"}
    assert frame["clears_trivial"].to_dict() == {"edge_popup": False, "honest": False, "elsewhere": True}
    assert "0.6000 ✗ knn_pixels" in render(Leaderboard(folder.path))


def test_features_of_a_frozen_network_have_a_column_and_a_mark_of_their_own(folder: Any) -> None:
    """What a row has to beat does not depend on whether a package is installed; that none is recorded, is said."""

    def trivial(name: str, value: float) -> Score:
        return Score(metric="top1", value=value, split="test", variant=f"trivial:{name}")

    for seed, value in enumerate((0.5, 0.51, 0.52)):
        known = [trivial("knn_pixels", 0.3), trivial("knn_lite0_features", 0.55), trivial("linear_lite0_features", 0.6)]
        folder.add(scores=[folder.top1(value), *known], seed=seed)
        folder.add(
            scores=[folder.top1(value), known[0]], method="elsewhere", dataset="other", data_digest="d9", seed=seed
        )
    board = Leaderboard(folder.path)
    row = board.frame(metrics=["top1"]).set_index("method").loc["edge_popup"]
    assert (row["trivial"], row["baseline"], row["clears_trivial"]) == (0.3, "knn_pixels", True)
    assert (row["frozen"], row["frozen_baseline"], row["clears_frozen"]) == (0.6, "linear_lite0_features", False)
    shown = render(board)
    assert "0.3000 ✓ knn_pixels" in shown
    assert "0.6000 ✗ linear_lite0_features" in shown
    assert "Without baselines on features of a frozen network: other (classification)." in shown


def test_every_cell_is_traced_to_its_records(folder: Any) -> None:
    records = folder.seeds([0.4, 0.6])
    board = Leaderboard.from_records(read_records(folder.path))
    cell = int(board.cell_of(board.rows, "top1")[0])
    sources = trace(board, View(metrics=["top1"]))
    assert sources["record_id"].tolist() == [record.record_id for record in records]
    assert sources["value"].tolist() == [0.4, 0.6]
    assert all(file.endswith(f"{run}-1.parquet") for run, file in zip(sources["run_id"], sources["file"], strict=True))
    seeds, values = board.seed_matrix(np.array([cell]))
    assert (seeds.tolist(), values.tolist()) == ([0, 1], [[0.4, 0.6]])


def test_ranks_have_intervals(folder: Any) -> None:
    folder.seeds([0.900, 0.911, 0.922, 0.930], method="best")
    folder.seeds([0.899, 0.912, 0.920, 0.931], method="close")
    folder.seeds([0.100, 0.112, 0.120, 0.131], method="far")
    folder.seeds([0.99, 0.99, 0.99], method="elsewhere", data_digest="d2")
    frame = Leaderboard(folder.path).frame(metrics=["top1"]).set_index("method")
    assert frame[["rank", "rank_best", "rank_worst"]].T.to_dict("list") == {
        "best": [1, 1, 2],
        "close": [2, 1, 2],
        "far": [3, 3, 3],
        "elsewhere": [1, 1, 1],
    }


def test_a_lucky_seed_is_shown_last_and_without_a_rank(folder: Any) -> None:
    for seed, value in enumerate((0.99, None, None)):
        status = "finished" if value else "failed"
        folder.add(value, seed=seed, method="lucky", status=status, error_kind="" if value else "nan")
    folder.seeds([0.90, 0.91, 0.93], method="steady")
    board = Leaderboard(folder.path)
    frame = board.frame(metrics=["top1"])
    assert frame[["method", "rank", "failed"]].to_numpy().tolist() == [["steady", 1, 0], ["lucky", 0, 2]]
    head, _, steady, lucky = render(board, "markdown", View(metrics=["top1"])).splitlines()[2:6]
    assert [cell.strip() for cell in head.split("|")[1:5]] == ["rank", "rank\\_range", "failed", "method"]
    assert [cell.strip() for cell in lucky.split("|")[1:5]] == ["–", "one seed", "2", "lucky"]
    assert [cell.strip() for cell in steady.split("|")[1:5]] == ["1", "1", "0", "steady"]
    notes_shown = _notes(board)
    assert "1 row with failed runs: mean and rank are over the seeds that finished." in notes_shown
    assert "1 row of a single seed: no interval, no rank" in notes_shown


def _on_items(folder: Any, values: Iterable[float], items: float | None, **changes: Any) -> None:
    for seed, value in enumerate(values):
        scores = [folder.top1(value)]
        if items is not None:
            scores.append(Score(metric="items", value=items, split="test", variant="full"))
        trivial = Score(metric="top1", value=0.5, split="test", variant="trivial")
        folder.add(seed=seed, scores=[*scores, trivial], **changes)


def test_equal_values_are_as_certain_as_their_items_allow(folder: Any) -> None:
    """Two seeds with the same value: no certainty on few items, none at all where nobody knows how many there are."""
    for method, items, value in (("few", 10.0, 0.7), ("many", 10_000.0, 0.7), ("unknown", None, 0.7)):
        _on_items(folder, [value, value], items, method=method)
    board = Leaderboard(folder.path)
    frame = board.frame(metrics=["top1"]).set_index("method")
    half = stats.t.ppf(0.975, 1) * np.sqrt(0.1**2 / 12) / np.sqrt(2)
    assert frame.loc["few", "high"] - 0.7 == pytest.approx(half)
    assert frame["clears_trivial"].to_dict() == {"few": False, "many": True, "unknown": False}
    assert np.isnan(frame.loc["unknown", "low"])
    table = [line for line in render(board, "markdown").splitlines() if line.startswith("|")]
    lines = {line.split("|")[3].strip(): line for line in table}
    assert "0.5000 ✗" in lines["few"]
    assert "0.5000 ✓" in lines["many"]
    assert "0.5000 |" in lines["unknown"]
    assert "1 row whose seeds all have the same score, and whose records do not say over how many items" in render(
        board
    )
    costs = board.frame(metrics=["wall_seconds"])
    assert (costs["low"] == costs["high"]).all()


def test_ranks_within_a_column(folder: Any) -> None:
    folder.seeds([0.90, 0.91, 0.92], budget="9 epochs")
    folder.seeds([0.50, 0.51, 0.52])
    board = Leaderboard(folder.path)
    assert board.frame(metrics=["top1"])["rank"].tolist() == [1, 2]
    assert "ranked together although these differ: budget (3 epochs, 9 epochs)" in _notes(board)
    assert board.frame(metrics=["top1"], within=["budget"])["rank"].tolist() == [1, 1]
    assert board.frame(metrics=["top1"], within=["sparsity"])["rank"].tolist() == [1, 2]
    with pytest.raises(UserError, match="budget"):
        board.frame(within=["bugdet"])


def test_sorting(folder: Any) -> None:
    for method, value, seconds in (("a", 0.3, 5.0), ("b", 0.9, 7.0), ("c", 0.6, 1.0)):
        folder.add(value, method=method, wall_seconds=seconds)
    board = Leaderboard(folder.path)

    def order(*sort: str) -> list[str]:
        return board.frame(metrics=["top1"], sort=sort)["method"].tolist()

    assert order() == ["b", "c", "a"]
    assert order("method") == ["a", "b", "c"]
    assert order("-method") == ["c", "b", "a"]
    assert order("wall_seconds") == ["c", "a", "b"]
    assert order("-top1") == ["b", "c", "a"]
    with pytest.raises(UserError, match="wall_seconds"):
        order("wall_second")


def test_filtering(folder: Any) -> None:
    for sparsity in (0.5, 0.8, 0.9):
        folder.add(
            scores=[folder.top1(1 - sparsity), Score(metric="sparsity", value=sparsity, variant="full")],
            config={"config": {"sparsity": sparsity, "layers": "all" if sparsity > 0.5 else "conv"}},
        )
    folder.add(0.4, method="dense")
    board = Leaderboard(folder.path)

    def found(where: str) -> list[float]:
        return [round(mean, 3) for mean in board.frame(metrics=["top1"], where=where)["mean"]]

    assert found("sparsity >= 0.8") == [0.2, 0.1]
    assert found("config.sparsity < 0.85 and layers == 'all'") == [0.2]
    assert found("method == 'dense' or top1 > 0.45") == [0.5, 0.4]
    assert found("seeds > 1") == []
    with pytest.raises(UserError, match="did you mean 'sparsity'"):
        found("sparsty > 1")


def test_unknown_metrics_are_named(folder: Any) -> None:
    folder.add()
    with pytest.raises(UserError, match="'top1'"):
        Leaderboard(folder.path).frame(metrics=["top_1"])


def test_nothing_to_show(folder: Any) -> None:
    folder.path.mkdir()
    board = Leaderboard(folder.path)
    assert len(board.frame()) == 0
    assert board.default_metrics == []
    folder.add(None, status="failed", data_digest="", protocol="")
    board = Leaderboard(folder.path)
    assert len(board.frame()) == 0
    assert board.rows["failed"].tolist() == [1]


def test_hostile_configs_do_no_harm(folder: Any) -> None:
    folder.add(config={"a": {"b": 1}}, method="nested")
    folder.add(config={"a": {"b": 2, "c": [1, {"d": 3}]}}, method="nested")
    labels = set(Leaderboard(folder.path).rows["config"])
    assert labels == {"a.b=1", 'a.b=2, a.c=[1, {"d": 3}]'}


@pytest.mark.parametrize(
    "text", ["[" * 5000, '{"a":' * 5000, "not JSON", "[1, 2]", '"text"', '{"lr": 1' + "0" * 400 + "}", '{"lr": NaN}']
)
def test_configs_that_are_not_ours_are_survived(folder: Any, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    folder.add(0.4, config={"lr": 1})
    with monkeypatch.context() as patch:
        patch.setattr("subnetbench.harness.records.write.canonical_json", lambda value, **_: text if value else "{}")
        folder.add(0.5, config_hash=text_hash(text))
    board = Leaderboard(folder.path)
    assert sorted(board.frame(metrics=["top1"])["mean"]) == [0.4, 0.5]
    assert board.frame(metrics=["top1"], where="lr == 1")["mean"].tolist() == [0.4]
    assert "edge_popup" in render(board)


def test_a_leaderboard_needs_no_torch() -> None:
    code = (
        "import sys, subnetbench.harness.leaderboard, subnetbench.harness.leaderboard.compare_formats\n"
        "assert not {'torch', 'transformers', 'accelerate'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_a_late_failure_that_knew_no_data_leaves_the_row_as_it_is(folder: Any) -> None:
    folder.seeds([0.5, 0.6])
    folder.add(None, status="failed", error_kind="error", seed=2, data_digest="", protocol="", budget="")
    (row,) = Leaderboard(folder.path).rows.to_dict("records")
    assert (row["data_digest"], row["protocol"], row["budget"]) == ("d1", "groups of unseen concepts", "3 epochs")
    assert (row["seeds"], row["failed"]) == (2, 1)
