"""Runs whose images change after they began: nothing is continued, counted, scored or started from in silence."""

import shutil

import pandas as pd
import pytest

from subnetbench.harness.runs.folder import find_runs

pytestmark = pytest.mark.slow
RUN = "dense-image_folder-s0"


def only_run(tmp_path):
    (folder,) = find_runs(tmp_path / "res")
    return folder


def test_a_pixel_that_changes_changes_the_digests(images, train, tmp_path, picture):
    """The file is as long as it was, and its name is the same."""
    train()
    before = only_run(tmp_path).provenance().data
    size = (images / "test/a/1.bmp").stat().st_size
    picture(images / "test/a/1.bmp", seed=7)
    assert (images / "test/a/1.bmp").stat().st_size == size
    train("--rerun")
    after = only_run(tmp_path).provenance().data
    assert before.splits["train"] == after.splits["train"]
    assert before.splits["test"] != after.splits["test"]
    records = pd.read_parquet(tmp_path / "res" / "records")
    assert records.data_digest.nunique() == 2


def test_a_finished_run_does_not_hide_that_its_data_changed(images, train, program, tmp_path, picture):
    train()
    picture(images / "train/b/9.bmp", seed=9)
    said = train(status=1)
    assert "error: the data of 1 run changed since: " in said
    assert "train/b/9.bmp" in said
    assert said.count("digest") >= 2
    assert "--rerun" in said
    assert "changed since" in train("--dry-run", status=1)
    assert "1 of 1 runs to do" in train("--rerun", "--dry-run")
    assert only_run(tmp_path).finished_file.exists()
    assert "finished after" in train("--rerun")
    assert "1 finished before" in train()


def test_a_run_that_was_interrupted_does_not_resume_on_other_images(images, train, tmp_path):
    train()
    folder = only_run(tmp_path)
    folder.finished_file.unlink()
    trained = folder.model_file.read_bytes()
    (images / "train/a/1.bmp").unlink()
    said = train(status=1)
    assert "image" in said
    assert "removed" in said
    assert "--rerun" in said
    assert folder.model_file.read_bytes() == trained
    train("--rerun")
    records = pd.read_parquet(tmp_path / "res" / "records").sort_values("attempt")
    digests = records.groupby("attempt").data_digest.first().tolist()
    assert folder.provenance().data.splits["train"].items == 10
    assert digests[0] != digests[-1]


def test_a_job_refuses_too_where_nobody_looked_before(images, train, tmp_path, picture):
    """Between the plan and the run, images may change as well: the run itself compares."""
    from subnetbench.harness.execution.run import execute
    from subnetbench.harness.execution.settings import RunSettings
    from subnetbench.harness.runs.spec import spec_from_json

    train()
    folder = only_run(tmp_path)
    folder.finished_file.unlink()
    picture(images / "train/a/1.bmp", seed=8)
    spec = spec_from_json(folder.spec_file.read_bytes())
    settings = RunSettings(data_root=tmp_path / "data", trackers=())
    assert execute(spec, tmp_path / "res", settings) == "failed"
    failure = folder.failure()
    assert failure.reason == "data-changed"
    assert "1 image changed: train/a/1.bmp" in failure.message
    # The failure is one that --rerun mends, without --retry-failed.
    assert "finished after" in train("--rerun")


def test_a_model_file_of_another_run_is_refused(images, train, program, tmp_path):
    train()
    train("--seed", 1)
    one, other = sorted((tmp_path / "res" / "runs").iterdir())
    shutil.copy(other / "model.safetensors", one)
    said = program("evaluate", one.name, "--out", "res", "--device", "cpu", status=2)
    assert f"these are the weights of {other.name}, but the folder is that of {one.name}" in said


def test_a_finished_run_whose_provenance_cannot_be_read_is_compared_by_what_else_says_it(
    images, train, tmp_path, picture
):
    train()
    folder = only_run(tmp_path)
    folder.provenance_file.write_text("{")
    assert "provenance.json cannot be read: taken from the model file of the run" in train()
    folder.model_file.write_bytes(b"")
    assert "provenance.json cannot be read: taken from the record of the run" in train()
    picture(images / "test/a/1.bmp", seed=7)
    assert "the data of 1 run changed since: test was 6 items" in train(status=1)
    folder.record_file().unlink()
    said = train()
    assert "on which data and code 1 run stands is not known: made by an earlier version, or what says so" in said


def test_evaluate_refuses_a_folder_that_grew(images, train, program, tmp_path, picture):
    """Folders of classes alone: the test split is drawn, and drawn anew from more images."""
    for split in ("test", "train"):
        for name in "ab":
            for file in (images / split / name).iterdir():
                target = images / name / f"{split}{file.name}"
                target.parent.mkdir(exist_ok=True)
                file.rename(target)
        shutil.rmtree(images / split)
    train()
    score = ("evaluate", RUN, "--out", "res", "--device", "cpu")
    assert "top1" in program(*score)
    for i in range(8):
        picture(images / "a" / f"more{i}.bmp", seed=50 + i)
    said = program(*score, status=1)
    assert "the data are not what they were" in said
    assert "digest" in said
    assert "images added" in said
    said = program(*score, "--data", "split_seed=0")
    assert "images that the run was trained on" in said


def test_a_teacher_that_was_trained_on_other_images_is_refused(images, train, program, tmp_path, picture):
    data = ("image_folder", "--data", "path=mine,validation_fraction=0.5,test_fraction=0.5", "--task", "retrieval")
    for name in "cdef":
        for i in range(3):
            picture(images / "train" / name / f"{i}.bmp", seed=ord(name) * 10 + i)
    tiny = "network=cnn8-8,image_size=16,epochs=1,limit_steps=1,dim=8"
    common = ("--device", "cpu", "--tracker", "none", "--out", "res")
    program("run", "triplet", *data, "--set", tiny, *common)
    teacher = next(folder.run_id for folder in find_runs(tmp_path / "res"))
    picture(images / "train/c/0.bmp", seed=3)
    student = ("run", "distillation", *data, "--set", tiny, "--input", f"teacher={{run: {teacher}}}")
    said = program(*student, *common, status=1)
    assert f"the input teacher ({teacher}) was trained before the data changed" in said
    assert "train/c/0.bmp" in said


def test_old_runs_are_read_as_unknown_and_say_so_once(images, train, program, tmp_path, picture):
    train()
    folder = only_run(tmp_path)
    for path in (folder.provenance_file, folder.model_file, folder.record_file()):
        path.unlink()  # earlier versions did not say in any of them what a run stands on
    picture(images / "test/a/1.bmp", seed=7)
    said = train()
    assert said.count("on which data and code 1 run stands is not known: made by an earlier version") == 1
    assert "1 finished before" in said


def test_data_that_are_gone_are_said(images, train):
    train()
    images.rename(images.with_name("elsewhere"))
    said = train()
    assert "whether the data of 1 run are as they were is not known" in said
    assert "1 finished before" in said


@pytest.mark.parametrize("change", ["touch", "same bytes"])
def test_images_that_were_only_touched_are_the_same(images, train, change):
    train()
    file = images / "train/a/1.bmp"
    if change == "touch":
        file.touch()
    else:
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    assert "1 finished before" in train()


def test_a_tuning_does_not_go_on_with_other_images(images, program, picture, tmp_path):
    tune = ("tune", "dense", "image_folder", "--data", "path=mine", "--set", "network=conv2,image_size=8,epochs=1")
    tune += ("--trials", "1", "--workers", "1", "--no-final", "--out", "tuned", "--tracker", "none")
    program(*tune)
    assert "stand" not in program(*tune)
    picture(images / "train/a/1.bmp", seed=8)
    said = program(*tune, status=1)
    assert "data of 1 runs of this tuning changed" in said
    assert "train/a/1.bmp" in said
