"""What rows stand on: code, files and numerics make rows of their own; times of several machines have no mean."""

import csv
import json
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from subnetbench.harness import api
from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.metrics import METRICS, depends_on_machine
from subnetbench.harness.leaderboard import Leaderboard, Settings, View, compare, curves, matrices, render
from subnetbench.harness.leaderboard.notes import notes
from subnetbench.harness.records import Score
from subnetbench.harness.records.schema import RUN_COSTS
from subnetbench.harness.runs.provenance import Environment, Provenance

KNOWN = {
    "code_digest": "a" * 16,
    "files_digest": "f" * 16,
    "numerics": "fp32",
    "training_macs": 2e9,
    "input_training_macs": 0.0,
}


def _notes(board: Leaderboard) -> str:
    return "\n".join(notes(board, board.rows))


def _machine(**known: str) -> str:
    return Provenance(environment=Environment(**known)).columns.provenance_json


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"code_digest": "b" * 16}, "code (aaaaaaaa, bbbbbbbb)"),
        ({"files_digest": "e" * 16}, "files (eeeeeeee, ffffffff)"),
        ({"numerics": "tf32"}, "numerics (fp32, tf32)"),
        ({"code_digest": ""}, "code (aaaaaaaa, unknown)"),
    ],
)
def test_what_rows_stand_on_makes_rows_and_the_reason_is_told(folder: Any, change: dict[str, Any], word: str) -> None:
    folder.seeds([0.1, 0.2, 0.3], **KNOWN)
    folder.seeds([0.7, 0.8, 0.9], **(KNOWN | change))
    board = Leaderboard(folder.path)
    assert sorted(board.frame(metrics=["top1"])["mean"]) == pytest.approx([0.2, 0.8])
    assert f"not averaged together, because these differ: {word}." in _notes(board)
    (name,) = change
    header, label = word.split(" (")[0], (str(change[name]) or "unknown")[:8]
    lines = render(board).splitlines()
    (head,) = (line for line in lines if line.startswith("rank ") and "method" in line)
    assert header in head
    assert any(label in line and "0.8000" in line for line in lines)
    assert f"What 2 rows stand on: other than most in {header} 1" in _notes(board)


def test_rows_that_agree_have_no_columns_for_it_and_one_line_says_so(folder: Any) -> None:
    folder.seeds([0.1, 0.2, 0.3], **KNOWN)
    folder.seeds([0.1, 0.2, 0.3], method="dense", **(KNOWN | {"code_digest": "b" * 16}))
    board = Leaderboard(folder.path)
    assert "code" not in render(board).splitlines()[2]
    assert "What 2 rows stand on: no difference in code, files, numerics, spending, machine." in _notes(board)


def test_rows_of_other_budgets_are_not_said_to_agree_in_spending(folder: Any) -> None:
    folder.seeds([0.1, 0.2, 0.3], **KNOWN)
    folder.seeds([0.1, 0.2, 0.3], method="dense", **(KNOWN | {"training_macs": 4e9, "budget": "2 epochs"}))
    found = _notes(Leaderboard(folder.path))
    assert "What 2 rows stand on: no difference in code, files, numerics, machine." in found


def test_values_that_are_not_finite_are_left_out_with_the_names_of_their_runs(folder: Any) -> None:
    folder.seeds([0.1, 0.2], **KNOWN)
    folder.seeds([float("nan")] * 5, method="broken", **KNOWN)
    board = Leaderboard(folder.path)
    named = ", ".join(fault.run_id for fault in board.records.not_finite[:3])
    assert f"5 values not finite and left out, of {named}, ..." in _notes(board)
    done = CliRunner().invoke(app, ["validate", str(folder.path)])
    assert done.exit_code == 1
    assert "7 valid records (5 with values that are not finite), 0 invalid" in done.output


def test_old_records_are_unknown_and_a_row_of_their_own(folder: Any) -> None:
    folder.seeds([0.1, 0.2, 0.3])
    board = Leaderboard(folder.path)
    assert len(board.frame(metrics=["top1"])) == 1
    assert "unknown: code of 1, files of 1, numerics of 1" in _notes(board)
    assert "no difference in machine;" in _notes(board)
    folder.seeds([0.1, 0.2, 0.3], **KNOWN)
    assert len(Leaderboard(folder.path).frame(metrics=["top1"])) == 2


@pytest.mark.parametrize(
    ("second", "said"),
    [({"git_sha": "b"}, True), ({"git_sha": "a", "git_dirty": True}, True), ({"git_sha": "a"}, False)],
)
def test_rows_of_unknown_code_say_that_they_average_over_commits(folder: Any, second: Any, said: bool) -> None:
    folder.add(0.5, seed=0, git_sha="a")
    folder.add(0.6, seed=1, **second)
    assert ("1 of unknown code averages over several commits" in _notes(Leaderboard(folder.path))) == said
    folder.add(0.5, seed=0, git_sha="a", code_digest="known", method="dense")
    folder.add(0.6, seed=1, git_sha="b", code_digest="known", method="dense")
    assert ("1 of unknown code averages over several commits" in _notes(Leaderboard(folder.path))) == said


def test_files_that_follow_from_the_config_are_no_difference(folder: Any) -> None:
    for sparsity in (0.5, 0.9):
        files = {"files_digest": str(sparsity) * 5, "config": {"config": {"sparsity": sparsity}}}
        folder.seeds([0.1, 0.2], **(KNOWN | files))
    board = Leaderboard(folder.path)
    assert "files (" not in _notes(board)
    assert "no difference in code, files" in _notes(board)


def test_a_failed_run_joins_the_row_of_its_code(folder: Any) -> None:
    folder.seeds([0.1, 0.2], **KNOWN)
    folder.seeds([0.3, 0.4], **(KNOWN | {"code_digest": "b" * 16}))
    failed = {"status": "failed", "error_kind": "nan"}
    folder.add(None, seed=5, **failed, code_digest="b" * 16, data_digest="", protocol="", budget="")
    folder.add(None, seed=6, **failed, **(KNOWN | {"files_digest": ""}))
    folder.add(None, seed=7, **failed, **(KNOWN | {"numerics": "bf16"}))
    board = Leaderboard(folder.path)
    counts = board.rows.set_index(["code_digest", "numerics"])["failed"].to_dict()
    assert counts == {("a" * 16, "fp32"): 1, ("b" * 16, "fp32"): 1, ("a" * 16, "bf16"): 1}


def test_a_finished_run_of_older_code_does_not_hide_a_failure(folder: Any) -> None:
    folder.add(0.5, seed=0, code_digest="a" * 16)
    folder.add(None, seed=0, code_digest="b" * 16, status="failed", error_kind="nan")
    assert Leaderboard(folder.path).rows["failed"].sum() == 1
    # Mended and run again: the failure is history.
    folder.add(0.6, seed=0, code_digest="c" * 16)
    assert Leaderboard(folder.path).rows["failed"].sum() == 0


def test_scores_of_several_machines_are_averaged_with_a_note_and_times_are_not(folder: Any) -> None:
    scores = [folder.top1(0.5), Score(metric="latency_ms", value=3.0, variant="full")]
    for seed, device in enumerate(("A100", "A100", "H100")):
        folder.add(scores=scores, seed=seed, device=device, versions={"torch": "2.5" if seed else "2.6"}, **KNOWN)
    board = Leaderboard(folder.path)
    frame = board.frame(metrics=["top1", "latency_ms", "wall_seconds"]).set_index("metric")
    assert frame["mean"]["top1"] == 0.5
    assert np.isnan([frame["mean"][name] for name in ("latency_ms", "wall_seconds")]).all()
    assert frame["not_averaged"].to_dict() == {
        "top1": "",
        "latency_ms": "device, libraries",
        "wall_seconds": "device, libraries",
    }
    assert (
        "device 1 (1 averages over several: A100, H100), libraries 1 (1 averages over several: torch 2.5 and 2.6)"
        in (_notes(board))
    )
    assert "latency_ms in 1 row (device, libraries)" in _notes(board)
    for format in ("terminal", "markdown", "latex"):
        assert "–*" in render(board, format).replace("\\*", "*").replace("--*", "–*")
    cells = {cell["metric"]: cell for cell in json.loads(render(board, "json"))["cells"]}
    assert (cells["latency_ms"]["mean"], cells["latency_ms"]["not_averaged"]) == (None, "device, libraries")
    assert cells["top1"]["mean"] == 0.5


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("device", {"device": "Y"}),
        ("threads", {"threads": 4}),
        ("processes", {"world_size": 2}),
        ("libraries", {"versions": {"torch": "2"}}),
        ("processor", {"gpu_hours": 0.1, "host": "node2"}),
        ("processor", {"provenance_json": _machine(cpu="EPYC")}),
        ("driver", {"provenance_json": _machine(driver="570.1")}),
    ],
)
def test_every_part_of_a_machine_counts(folder: Any, part: str, change: dict[str, Any]) -> None:
    folder.add(0.5, seed=0, device="X", gpu_hours=0.1, host="node1")
    folder.add(0.5, seed=1, device="X", gpu_hours=0.1, host="node1")
    (line,) = Leaderboard(folder.path).frame(metrics=["wall_seconds"]).to_dict("records")
    assert (line["mean"], line["not_averaged"]) == (9.0, "")
    folder.add(0.5, seed=2, **({"device": "X", "gpu_hours": 0.1, "host": "node1"} | change))
    (line,) = Leaderboard(folder.path).frame(metrics=["wall_seconds"]).to_dict("records")
    assert np.isnan(line["mean"])
    assert part in line["not_averaged"].split(", ")


def test_by_machine_gives_each_machine_a_row_with_times(folder: Any) -> None:
    machines = [("A100", 1, "2.5"), ("A100", 1, "2.5"), ("A100", 4, "2.5"), ("H100", 1, "2.5"), ("H100", 1, "2.6")]
    for seed, (device, threads, torch) in enumerate(machines):
        folder.add(seed / 10, seed=seed, device=device, threads=threads, versions={"torch": torch}, wall_seconds=seed)
    folder.add(None, seed=9, status="failed", device="H100", versions={"torch": "2.6"})
    board = Leaderboard(folder.path, by_machine=True)
    frame = board.frame(metrics=["wall_seconds"]).set_index("machine")
    assert frame["mean"].to_dict() == {
        "A100, 1 thread": 0.5,
        "A100, 4 threads": 2.0,
        "H100, 1 thread, torch 2.5": 3.0,
        "H100, 1 thread, torch 2.6": 4.0,
    }
    assert frame["failed"].tolist() == [0, 0, 0, 1]
    assert set(frame["not_averaged"]) == {""}
    assert "A100, 4 threads" in render(board, "markdown")
    assert set(Leaderboard(folder.path).frame()["machine"]) == {""}
    assert set(api.leaderboard(folder.path, by="machine").frame["machine"]) == set(frame.index)
    with pytest.raises(UserError, match="by: no such division of rows"):
        api.leaderboard(folder.path, by="host")


@pytest.mark.parametrize("machines", [[], [("", 1)]])
def test_by_machine_needs_no_record_and_no_device(folder: Any, machines: list[tuple[str, int]]) -> None:
    for device, threads in machines:
        folder.add(0.5, device=device, threads=threads)
    folder.path.mkdir(exist_ok=True)
    names = Leaderboard(folder.path, by_machine=True).rows["machine"].tolist()
    assert names == ["device not known, 1 thread"] * len(machines)


def test_commits_of_the_same_code_are_named(folder: Any) -> None:
    for seed, commit in enumerate("abc"):
        folder.add(0.5, seed=seed, git_sha=commit * 40, git_dirty=commit == "c", **KNOWN)
    said = "1 of unchanged code averages over several commits (aaaaaaaa, bbbbbbbb, cccccccc+)"
    assert said in _notes(Leaderboard(folder.path))


def test_hosts_of_one_kind_are_one_machine(folder: Any) -> None:
    for seed in range(3):
        folder.add(0.5, seed=seed, device="EPYC", host=f"node{seed}", gpu_hours=0.0)
    for seed in range(3):
        machine = {"provenance_json": _machine(cpu="EPYC"), "device": "H100"}
        folder.add(0.5, seed=seed, host=f"node{seed}", gpu_hours=0.1, method="dense", **machine)
    assert Leaderboard(folder.path).frame(metrics=["wall_seconds"])["mean"].tolist() == [9.0, 9.0]


def test_what_depends_on_the_machine() -> None:
    timed = {name for name in METRICS if depends_on_machine(name)}
    assert {
        "latency_ms",
        "warm_latency_ms_p95",
        "cold_query_ms",
        "throughput",
        "lifetime_time_speedup_assumed",
    } <= timed
    assert not timed & {"top1", "loss", "macs_executed", "cascade_macs", "cold_query_macs", "search_trials"}
    assert not {name for name in METRICS if "_ms" in name} - timed
    assert all(depends_on_machine(name) for name in RUN_COSTS if "seconds" in name or "hours" in name)


def test_times_of_other_machines_are_neither_ranked_nor_compared(folder: Any, other_folder: Any) -> None:
    def add(to: Any, values: Any, device: str, **changes: Any) -> None:
        for seed, value in enumerate(values):
            score = Score(metric="cold_query_ms", value=value, split="test", variant="full")
            to.add(scores=[folder.top1(0.5), score], seed=seed, device=device, **changes)

    add(folder, [1.0, 1.1, 1.2], "X")
    add(folder, [9.0, 9.1, 9.2], "X", method="slow")
    assert Leaderboard(folder.path).frame(metrics=["cold_query_ms"])["rank"].tolist() == [1, 2]
    add(folder, [5.0, 5.1, 5.2], "Y", method="elsewhere")
    assert set(Leaderboard(folder.path).frame(metrics=["cold_query_ms"])["rank"]) == {0}
    add(other_folder, [1.0, 1.1, 1.2], "Y")
    found = compare(folder.path, other_folder.path, Settings(metrics=["cold_query_ms"], where="method == 'edge_popup'"))
    assert len(found.rows) == 0
    assert found.missing["reason"].tolist() == ["times of other machines are not compared: device"]
    assert found.exit_status == 1


def test_a_comparison_says_that_code_changed(folder: Any, other_folder: Any) -> None:
    folder.seeds([0.5, 0.6, 0.7], **KNOWN)
    other_folder.seeds([0.5, 0.6, 0.7], **(KNOWN | {"code_digest": "b" * 16}), device="Y")
    found = compare(folder.path, other_folder.path)
    assert found.rows["verdict"].tolist() == ["identical"]
    assert "Of 1 compared pairs of rows, b stands on other: code 1, device 1." in found.notes


def test_a_comparison_takes_the_latest_code_of_each_side(folder: Any, other_folder: Any) -> None:
    new = KNOWN | {"code_digest": "b" * 16}
    folder.seeds([0.5, 0.6, 0.7], **KNOWN)
    other_folder.seeds([0.5, 0.6, 0.7], **KNOWN)
    other_folder.seeds([0.1, 0.21, 0.29], **new)
    found = compare(folder.path, other_folder.path)
    assert (found.rows["b"].tolist(), found.exit_status) == ([pytest.approx(0.2)], 1)
    assert found.only_b["reason"].tolist() == [
        "a later row of the same config is compared: other code, files, numerics or spending"
    ]
    assert any("1 of b" in note for note in found.notes)


def test_a_gate_fails_where_all_runs_of_the_latest_code_failed(folder: Any, other_folder: Any) -> None:
    folder.seeds([0.5, 0.6, 0.7], **KNOWN)
    other_folder.seeds([0.5, 0.6, 0.7], **KNOWN)
    assert compare(folder.path, other_folder.path).exit_status == 0
    for seed in range(3):
        other_folder.add(None, seed=seed, status="failed", error_kind="nan", code_digest="b" * 16)
    found = compare(folder.path, other_folder.path)
    assert found.exit_status == 1
    assert found.missing["reason"].tolist() == ["all 3 runs of its latest code failed in b"]


def test_curves_keep_code_apart_and_name_it(folder: Any) -> None:
    for code, shift in (("a" * 16, 0.0), ("b" * 16, 0.3)):
        for lr in (0.1, 0.2):
            folder.seeds([lr + shift, lr + shift + 0.1], config={"config": {"lr": lr}}, code_digest=code)
    lines = {line.name: line.mean.round(3).tolist() for line in curves(folder.path, "lr", ["top1"])}
    assert lines == {
        "edge_popup full (code aaaaaaaa)": [0.15, 0.25],
        "edge_popup full (code bbbbbbbb)": [0.45, 0.55],
    }


def test_a_split_that_does_not_exist_is_an_error_that_says_which_do(folder: Any, other_folder: Any) -> None:
    folder.add(0.1, scores=[folder.top1(0.3), folder.top1(0.4, split="validation")])
    board = Leaderboard(folder.path)
    for listing in (
        lambda: board.frame(splits=["tset"]),
        lambda: render(board, view=View(splits=["test", "tset"])),
        lambda: compare(folder.path, folder.path, Settings(splits=["tset"])),
        lambda: curves(folder.path, "sparsity", ["top1"], split="tset"),
    ):
        with pytest.raises(UserError, match=r"no split 'tset'.*test"):
            listing()
    # One side may have a split that the other lost: that is a difference, and no error.
    other_folder.add(0.1)
    found = compare(folder.path, other_folder.path, Settings(splits=["validation"]))
    assert found.missing["reason"].tolist() == ["no such row on the other side"]
    # Failed runs have no split at all.
    other_folder.add(None, status="failed", error_kind="nan", method="dense")
    assert Leaderboard(other_folder.path).frame(splits=["test"], where="method == 'dense'").empty


def test_a_board_has_a_short_repr(folder: Any) -> None:
    folder.seeds([0.1, 0.2])
    assert repr(Leaderboard(folder.path)) == "<Leaderboard of 2 records, 1 rows>"
    assert "0x" not in repr(api.leaderboard(folder.path))


def test_filters_and_sources_know_what_rows_stand_on(folder: Any) -> None:
    folder.seeds([0.1, 0.2], **KNOWN)
    folder.seeds([0.3, 0.4], **(KNOWN | {"numerics": "tf32"}))
    board = Leaderboard(folder.path)
    assert board.frame(metrics=["top1"], where="numerics == 'tf32'")["mean"].tolist() == [pytest.approx(0.35)]
    assert len(render(board, "terminal", View(within=["numerics"])).split("ranked by top1")) == 3


def test_matrices_of_other_code_are_matrices_of_their_own(folder: Any, caplog: pytest.LogCaptureFixture) -> None:
    pairs = [("sub", "full", 0.3), ("full", "full", 0.6), ("sub", "sub", 0.2)]
    for code, gain in (("a" * 16, 0.0), ("b" * 16, 0.1)):
        scores = [
            Score(metric="recall_at_1", value=v + gain, split="test", variant=q, gallery_variant=g) for q, g, v in pairs
        ]
        for seed in range(2):
            folder.add(
                scores=scores,
                seed=seed,
                task="retrieval",
                primary_metric="recall_at_1",
                **(KNOWN | {"code_digest": code}),
            )
    found = {each.title.rpartition(" · ")[2]: each.mean[0].tolist() for each in matrices(folder.path, ["recall_at_1"])}
    assert set(found) == {"code aaaaaaaa", "code bbbbbbbb"}
    assert found["code aaaaaaaa"] != found["code bbbbbbbb"]
    assert "other than most in code" in caplog.text


def test_on_the_command_line(folder: Any) -> None:
    folder.seeds([0.1, 0.2, 0.3], device="A100", **KNOWN)
    for seed, device in enumerate(("A100", "H100", "H100")):
        folder.add(0.4 + seed / 10, seed=seed, device=device, **(KNOWN | {"code_digest": "b" * 16}))

    def shown(*options: str) -> str:
        result = CliRunner().invoke(
            app, ["leaderboard", str(folder.path), "-m", "top1", "-m", "wall_seconds", *options]
        )
        assert result.exit_code == 0, result.output
        return result.output

    text = " ".join(shown().split())
    assert "What 2 rows stand on: other than most in code 1, device 1 (1 averages over several: A100, H100)" in text
    assert "Times of several machines are never averaged (–*), in brackets what differs: wall_seconds in 1 row" in text
    plain = json.loads(shown("--json"))
    times = {cell["code_digest"][0]: cell for cell in plain["cells"] if cell["metric"] == "wall_seconds"}
    assert (times["a"]["mean"], times["b"]["mean"], times["b"]["not_averaged"]) == (9.0, None, "device")
    lines = csv.DictReader(shown("--sources", "--format", "csv").splitlines())
    devices = sorted(line["device"] for line in lines if line["metric"] == "wall_seconds")
    assert devices == ["A100"] * 4 + ["H100"] * 2
    with_one = json.loads(shown("--json", "--where", "code_digest == 'bbbbbbbbbbbbbbbb'"))
    assert {cell["code_digest"] for cell in with_one["cells"]} == {"b" * 16}
