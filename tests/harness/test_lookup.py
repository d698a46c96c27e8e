"""Finding runs: by path, by id, by the beginning of an id; in one results folder or in all of them."""

import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.runs.folder import RunFolder, find_runs
from subnetbench.harness.runs.lookup import (
    find_matching,
    find_run,
    matching_ids,
    results_folders,
    run_folder_at,
    single_id,
)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"a": ("dense-s0-1", "dense-s0-12"), "b": ("dense-s0-1", "mask-s0-3"), "b/trials": ("mask-s1-4",)}
    for path, runs in names.items():
        for run in runs:
            RunFolder(tmp_path / "results" / path, run).create("{}")
    (tmp_path / "results" / "empty").mkdir()
    return tmp_path / "results"


def test_one_whole_id_though_it_is_the_beginning_of_another(folders):
    assert find_run("dense-s0-1") == RunFolder(folders.relative_to(folders.parent) / "a", "dense-s0-1")
    assert find_run("mask", folders / "b").run_id == "mask-s0-3"
    assert single_id("dense-s0-1", ["dense-s0-1", "dense-s0-12"]) == "dense-s0-1"
    assert matching_ids("dense", ["dense-s0-12", "dense-s0-1", "x"]) == ["dense-s0-1", "dense-s0-12"]


def test_several_or_none_are_errors_that_help(folders):
    with pytest.raises(UserError, match=r"RUN: 2 runs begin with it \(got 'dense'\); allowed: dense-s0-1, dense-s0-12"):
        find_run("dense")
    with pytest.raises(UserError, match=r"there is no run 'mask-s0-4'; did you mean 'mask-s0-3'\?"):
        find_run("mask-s0-4")
    with pytest.raises(UserError, match="FOLDER: there is no such folder"):
        find_run("mask", folders / "c")


def test_folders_of_runs_are_found_by_path(folders):
    path = folders / "b" / "runs" / "mask-s0-3"
    assert find_run(str(path)) == RunFolder(folders / "b", "mask-s0-3") == run_folder_at(path)
    assert run_folder_at(folders / "b") is None


def test_trials_of_tunings_are_looked_at_where_that_is_wanted(folders):
    assert [path.name for path in results_folders()] == ["a", "b"]
    assert [path.name for path in results_folders(trials=True)] == ["a", "b", "trials"]
    runs = [run for path in results_folders(trials=True) for run in find_runs(path)]
    assert [run.run_id for run in find_matching("mask", runs)] == ["mask-s0-3", "mask-s1-4"]
