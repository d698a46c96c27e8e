"""Runs that left no record that counts: their seeds are lost, and a comparison that lacks them fails."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from subnetbench.harness.cli.app import app
from subnetbench.harness.leaderboard import Leaderboard, compare, render
from subnetbench.harness.records import Score
from subnetbench.harness.records.merge import merge
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.state import Heartbeat


def _spec(seed: int, **config: Any) -> RunSpec:
    return RunSpec(method="edge_popup", dataset="emoji", task="classification", config=config, data={}, seed=seed)


def _seeds(to: Any, values: list[float], **config: Any) -> None:
    for seed, value in enumerate(values):
        spec = _spec(seed, **config)
        plain = {"config": spec.recipe(), "spec": spec.model_dump(mode="json"), "config_hash": spec.config_hash}
        to.add(value, run_id=spec.run_id, seed=seed, **plain)


def _killed(path: Path, seed: int, **config: Any) -> RunFolder:
    spec = _spec(seed, **config)
    run = RunFolder(path, spec.run_id)
    run.create(spec.model_dump_json())
    run.write_heartbeat(Heartbeat(ended="interrupted"))
    return run


def test_a_killed_run_is_a_lost_seed(folder: Any, other_folder: Any) -> None:
    _seeds(folder, [0.5, 0.6, 0.7])
    _seeds(other_folder, [0.5, 0.6])
    assert compare(folder.path, other_folder.path).exit_status == 0  # not run
    _killed(other_folder.path, 2)
    found = compare(folder.path, other_folder.path)
    assert found.exit_status == 1
    (line,) = found.missing.to_dict("records")
    assert (line["seeds_a"], line["seeds_b"], line["failed_b"]) == (3, 2, 1)
    assert line["reason"] == (
        "1 of 3 seeds lost in b: 1 runs failed or left no record that counts (1 no record, interrupted)"
    )
    assert any("In b: 1 run with a folder and no record (1 interrupted)" in note for note in found.notes)


def test_a_killed_run_of_another_config_loses_no_seed_but_is_told(folder: Any, other_folder: Any) -> None:
    _seeds(folder, [0.5, 0.6, 0.7])
    _seeds(other_folder, [0.5, 0.6])
    _killed(other_folder.path, 2, sparsity=0.9)
    assert compare(folder.path, other_folder.path).exit_status == 0
    board = Leaderboard(other_folder.path)
    assert "1 run with a folder and no record (1 interrupted): edge_popup-emoji-s2-" in " ".join(render(board).split())
    assert board.without_record["why"].tolist() == ["no record, interrupted"]


def test_a_row_of_killed_runs_alone_is_missing_with_the_reason(folder: Any, other_folder: Any) -> None:
    _seeds(folder, [0.5, 0.6])
    other_folder.add(0.5, method="dense")
    for seed in range(2):
        _killed(other_folder.path, seed)
    found = compare(folder.path, other_folder.path)
    assert found.exit_status == 1
    assert found.missing["reason"].tolist() == ["all 2 runs failed in b, or have no valid record"]


def test_folders_that_cannot_be_understood_and_trials_are_no_lost_seeds(folder: Any) -> None:
    _seeds(folder, [0.5, 0.6])
    strange = RunFolder(folder.path, "strange")
    strange.create("{not json")
    _killed(folder.path / "trials", 5)
    assert Leaderboard(folder.path).without_record[["run_id", "seed"]].to_numpy().tolist() == [["strange", -1]]
    assert compare(folder.path, folder.path).exit_status == 0


def test_a_merged_folder_knows_its_runs(folder: Any) -> None:
    _seeds(folder, [0.5, 0.6])
    for seed in range(3):
        _killed(folder.path, seed)
    merge(folder.path)
    assert len(Leaderboard(folder.path).without_record) == 1


@pytest.mark.parametrize("known_config", [True, False])
def test_a_seed_whose_record_is_not_valid_is_lost(folder: Any, other_folder: Any, known_config: bool) -> None:
    for to in (folder, other_folder):
        to.seeds([0.5, 0.6])
    folder.add(0.7, seed=2)
    wrong = {"scores": [Score(metric="top1", value=1.7, split="test", variant="full")]}
    other_folder.add(seed=2, **(wrong if known_config else {"config_hash": "0" * 16}))
    found = compare(folder.path, other_folder.path)
    assert found.exit_status == 1
    assert "1 of 3 seeds lost in b" in found.missing["reason"][0]
    assert "1 record not valid" in found.missing["reason"][0]
    shown = CliRunner().invoke(app, ["compare", str(folder.path), str(other_folder.path)])
    assert (shown.exit_code, "record not valid" in " ".join(shown.output.split())) == (1, True)
    allowed = CliRunner().invoke(app, ["compare", str(folder.path), str(other_folder.path), "--allow-missing"])
    assert allowed.exit_code == 0


def test_an_invalid_trial_is_no_lost_seed(folder: Any, other_folder: Any) -> None:
    folder.seeds([0.5, 0.6, 0.7])
    other_folder.seeds([0.5, 0.6])
    wrong = [Score(metric="top1", value=1.7, split="test", variant="full")]
    other_folder.add(seed=2, scores=wrong, trial=3, study="s")
    assert compare(folder.path, other_folder.path).exit_status == 0


@pytest.mark.parametrize("with_folder", [True, False])
def test_a_seed_whose_record_cannot_be_read_is_lost(folder: Any, other_folder: Any, with_folder: bool) -> None:
    for to in (folder, other_folder):
        _seeds(to, [0.5, 0.6, 0.7])
    (file,) = (other_folder.path / "records").glob("edge_popup-emoji-s2-*.parquet")
    file.write_bytes(file.read_bytes()[:-20])
    if with_folder:
        _killed(other_folder.path, 2)
    found = compare(folder.path, other_folder.path)
    assert found.exit_status == 1
    why = "no record, interrupted" if with_folder else "record not readable"
    assert found.missing["reason"].tolist() == [
        f"1 of 3 seeds lost in b: 1 runs failed or left no record that counts (1 {why})"
    ]


def test_an_invalid_copy_of_a_sound_record_is_no_failure(folder: Any, other_folder: Any) -> None:
    folder.seeds([0.5, 0.6])
    other_folder.add(0.5, seed=0)
    other_folder.add(0.6, seed=1, run_id="twice")
    wrong = [Score(metric="top1", value=1.7, split="test", variant="full")]
    other_folder.add(seed=1, run_id="twice", scores=wrong)
    found = compare(folder.path, other_folder.path)
    assert (found.exit_status, found.rows["failed_b"].tolist()) == (0, [0])
