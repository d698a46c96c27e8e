"""What runs spent makes rows, labels and refusals; networks of inputs are rows of the input."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.quantities import macs_text
from subnetbench.harness.leaderboard import Leaderboard, Settings, compare, matrices, render
from subnetbench.harness.leaderboard.frames import View, view_of
from subnetbench.harness.leaderboard.notes import notes
from subnetbench.harness.leaderboard.spending import spending
from subnetbench.harness.records import Score
from subnetbench.harness.runs.spent import Ledger, Spent


def macs(own: float, inputs: float = 0.0) -> dict[str, float]:
    return {"training_macs": own, "input_training_macs": inputs}


def budgets(folder: Any, **options: Any) -> list[str]:
    rows, _ = view_of(Leaderboard(folder.path), View(["top1"], **options))
    return sorted(rows["budget"])


def test_equal_labels_with_other_spending_are_other_rows(folder: Any) -> None:
    folder.seeds([0.5, 0.6], **macs(6.8e9))
    folder.seeds([0.7, 0.8], **macs(61.3e9))
    board = Leaderboard(folder.path)
    assert budgets(folder) == ["3 epochs, 6.8 GMAC", "3 epochs, 61.3 GMAC"]
    said = "\n".join(notes(board, board.rows))
    assert "not averaged together, because these differ: spending (6.8 GMAC, 61.3 GMAC)" in said
    assert "other than most in spending 1" in said
    assert "rows are ranked together although these differ: budget (3 epochs, 6.8 GMAC; 3 epochs, 61.3 GMAC)" in said
    assert "3 epochs, 61.3 GMAC" in render(board)


@pytest.mark.parametrize(("other", "rows"), [(1.009e9, 1), (1.011e9, 2), (0.995e9, 1), (0.98e9, 2)])
def test_one_per_cent_is_the_same_budget(folder: Any, other: float, rows: int) -> None:
    folder.seeds([0.5, 0.6], **macs(1e9))
    folder.add(0.7, seed=2, **macs(other))
    assert len(budgets(folder)) == rows


def test_what_inputs_spent_counts(folder: Any) -> None:
    folder.seeds([0.5, 0.6], **macs(1e9))
    folder.seeds([0.5, 0.6], method="student", **macs(1e9, 5e9))
    assert budgets(folder) == ["3 epochs, 1 GMAC", "3 epochs, 6 GMAC"]
    frame = Leaderboard(folder.path).frame(metrics=["top1"], sort=["total_training_macs"])
    assert frame["total_training_macs"].tolist() == [1e9, 6e9]
    frame = Leaderboard(folder.path).frame(metrics=["input_training_macs"], sort=["-input_training_macs"])
    assert frame["mean"].tolist() == [5e9, 0]


def test_labels_of_methods_that_spent_the_same_are_the_same(folder: Any) -> None:
    folder.seeds([0.5, 0.6], **macs(1.004e9))
    folder.seeds([0.5, 0.6], method="dense", **macs(1.006e9))
    folder.seeds([0.5, 0.6], method="aslp", **macs(1.02e9))
    assert budgets(folder) == ["3 epochs, 1 GMAC", "3 epochs, 1 GMAC", "3 epochs, 1.02 GMAC"]
    frame = Leaderboard(folder.path).frame(metrics=["top1"], within=["budget"])
    assert frame.groupby("budget")["method"].agg(set).to_dict() == {
        "3 epochs, 1 GMAC": {"edge_popup", "dense"},
        "3 epochs, 1.02 GMAC": {"aslp"},
    }


def test_early_stops_are_one_row_that_says_the_range(folder: Any) -> None:
    for seed, spent in enumerate((4e9, 6e9, 7.5e9)):
        folder.add(0.5, seed=seed, budget="up to 16 epochs x 1000 images", **macs(spent))
    assert budgets(folder) == ["up to 16 epochs x 1000 images, 4 GMAC to 7.5 GMAC"]


def test_unknown_spending_is_a_row_of_its_own_and_failed_runs_join(folder: Any) -> None:
    folder.add(0.5, seed=0)
    folder.seeds([0.5, 0.6], **macs(1e9))
    folder.add(None, seed=7, status="failed", error_kind="nan", error="loss")
    rows, _ = view_of(Leaderboard(folder.path), View(["top1"]))
    assert sorted(zip(rows["budget"], rows["seeds"], strict=True)) == [("3 epochs", 1), ("3 epochs, 1 GMAC", 2)]
    assert rows["failed"].sum() == 1


def test_failed_and_pruned_runs_count_in_the_row_that_knows(folder: Any) -> None:
    folder.seeds([0.5, 0.6], **macs(1e9))
    folder.add(None, seed=7, status="failed", error_kind="nan", error="loss")
    folder.add(None, seed=8, status="pruned", error_kind="pruned", error="pruned", **macs(3e8))
    rows, _ = view_of(Leaderboard(folder.path), View(["top1"]))
    assert rows[["budget", "failed", "pruned"]].to_numpy().tolist() == [["3 epochs, 1 GMAC", 1, 1]]


def test_compare_refuses_methods_of_other_budgets_unless_told(folder: Any) -> None:
    folder.seeds([0.5, 0.6], **macs(6.8e9))
    folder.seeds([0.7, 0.8], method="dense", **macs(61.3e9))
    sets = {"a": "method == 'edge_popup'", "b": "method == 'dense'"}
    with pytest.raises(UserError, match=r"other budget \(a: 3 epochs, 6.8 GMAC; b: 3 epochs, 61.3 GMAC\)"):
        compare(folder.path, settings=Settings(**sets))
    assert len(compare(folder.path, settings=Settings(**sets, across=["budget"])).rows) == 1


@pytest.mark.parametrize(
    ("before", "after", "pairs"),
    [
        (macs(1e9), macs(1.009e9), 1),
        (macs(1.0049e9), macs(1.0051e9), 1),  # other words for nearly the same
        (macs(1e9), macs(2e9), 0),
        ({}, macs(2e9), 1),  # old records do not know
        ({}, {}, 1),
    ],
)
def test_compare_as_a_gate_takes_the_same_spending(
    folder: Any, other_folder: Any, before: dict[str, float], after: dict[str, float], pairs: int
) -> None:
    folder.seeds([0.5, 0.6], **before)
    other_folder.seeds([0.5, 0.6], **after)
    found = compare(folder.path, other_folder.path)
    assert len(found.rows) == pairs
    if not pairs:
        assert found.only_a["reason"].tolist() == ["other budget"]
    if before != after and not before:
        assert any("unknown on a side" in line and "spending 1" in line for line in found.notes)


def with_teacher(folder: Any, *, spent_json: str | None = None, teacher: float = 9e9) -> None:
    ledger = Ledger.of(
        Spent("s", "distillation", budget="16 epochs x 1000 images", training_macs=1e9),
        [Ledger.of(Spent("t", "triplet", "resnet", "45 epochs x 1000 images", teacher), [])],
    ).evaluated({"teacher": "t"})
    for seed in (0, 1, 2):
        scores = [
            Score(metric="map", value=0.4 + seed / 100, split="test", variant="student", gallery_variant="student"),
            Score(metric="map", value=0.42 + seed / 100, split="test", variant="student", gallery_variant="teacher"),
            Score(
                metric="map",
                value=0.6 + seed / 100,
                split="test",
                variant="teacher",
                gallery_variant="teacher",
                origin="triplet",
            ),
            Score(metric="parameters", value=1e6, variant="teacher", origin="triplet"),
            Score(metric="parameters", value=1e5, variant="student"),
        ]
        folder.add(
            scores=scores,
            seed=seed,
            method="distillation",
            network="small",
            task="retrieval",
            primary_metric="map",
            budget="16 epochs x 1000 images",
            spent_json=ledger.to_text() if spent_json is None else spent_json,
            **macs(1e9, teacher),
        )


def test_a_teacher_beside_its_student_is_a_row_of_the_teachers_method(folder: Any) -> None:
    with_teacher(folder)
    board = Leaderboard(folder.path)
    frame = board.frame(metrics=["map"], within=["budget"])
    teacher = frame[frame["variant"] == "teacher"].iloc[0]
    assert teacher[["method", "network", "budget", "input_of", "rank"]].tolist() == [
        *("triplet", "resnet", "45 epochs x 1000 images, 9 GMAC", "distillation", 1)
    ]
    assert teacher["total_training_macs"] == 9e9
    students = frame[frame["method"] == "distillation"]
    assert set(students["budget"]) == {"16 epochs x 1000 images, 10 GMAC"}
    assert students["rank"].min() == 1  # the first of its budget is a student
    assert set(students["input_of"]) == {""}
    # What the student's run cost is no cost of the teacher, but the size of its network is.
    assert "triplet" not in set(board.frame(metrics=["training_macs"])["method"])
    sizes = board.frame(metrics=["parameters"])
    assert sizes.set_index("method")["mean"].to_dict()["triplet"] == 1e6
    assert "input of" in render(board)


def test_the_inputs_of_a_run_are_found_wherever_its_record_lies(folder: Any) -> None:
    """The order in which records are read is not that in which runs ended."""
    for i in range(3):
        folder.add(0.5, seed=i, method="edge_popup", run_id=f"z{i}")
    with_teacher(folder)
    for i in range(3):
        folder.add(0.5, seed=i, method="aslp", run_id=f"a{i}")
    frame = Leaderboard(folder.path).frame(metrics=["map"])
    teacher = frame[frame["variant"] == "teacher"].iloc[0]
    assert (teacher["network"], teacher["budget"]) == ("resnet", "45 epochs x 1000 images, 9 GMAC")


def test_a_matrix_keeps_the_networks_of_inputs(folder: Any) -> None:
    with_teacher(folder)
    (found,) = matrices(folder.path, ["map"])
    assert set(found.names) == {"student", "teacher"}
    assert np.isfinite(found.self_tests).all()
    assert found.title.startswith("distillation")


NAMELESS = json.dumps({"own": {"training_macs": 1e9}, "inputs": [{"training_macs": 9e9}]})


@pytest.mark.parametrize("text", ["", NAMELESS])
def test_a_record_that_says_nothing_of_its_inputs_leaves_their_budget_unknown(folder: Any, text: str) -> None:
    with_teacher(folder, spent_json=text)
    frame = Leaderboard(folder.path).frame(metrics=["map"])
    teacher = frame[frame["variant"] == "teacher"].iloc[0]
    assert (teacher["method"], teacher["budget"]) == ("triplet", "unknown")
    assert np.isnan(teacher["total_training_macs"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0, "0 MAC"), (999, "999 MAC"), (999.6, "1 kMAC"), (6.8e9, "6.8 GMAC"), (61.34e9, "61.3 GMAC")),
        *((999.4e9, "999 GMAC"), (999.6e9, "1 TMAC"), (1e24, "1e+06 EMAC")),
    ],
)
def test_words_for_macs(value: float, text: str) -> None:
    assert macs_text(value) == text


TOTALS = st.lists(
    st.tuples(st.sampled_from(["a", "b"]), st.floats(1, 1e15) | st.floats(1e9, 1.1e9)), min_size=1, max_size=40
)


@given(TOTALS)
def test_kinds_are_at_most_one_per_cent_wide_and_have_words_of_their_own(rows: list[tuple[str, float]]) -> None:
    methods, totals = zip(*rows, strict=True)
    table = pa.table(
        {
            "method": list(methods),
            "budget": ["3 epochs"] * len(rows),
            "status": ["finished"] * len(rows),
            "training_macs": list(totals),
            "input_training_macs": [0.0] * len(rows),
        }
    )
    labels = spending(table, ["method"]).decode()
    kinds: dict[tuple[str, str], list[float]] = {}
    for method, total, label in zip(methods, totals, labels, strict=True):
        kinds.setdefault((method, label), []).append(total)
    for members in kinds.values():
        assert max(members) <= 1.01 * min(members) * (1 + 1e-12)
    for method in set(methods):
        own = sorted(total for m, total in rows if m == method)
        if own[-1] <= 1.01 * own[0]:  # nothing is cut that belongs together
            assert len({label for m, label in kinds if m == method}) == 1
