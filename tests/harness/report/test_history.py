"""Learning curves from TensorBoard files, whole, broken and hostile ones."""

import os
from pathlib import Path
from types import ModuleType

import pytest

from subnetbench.harness.report.history import read_history


def test_curves_come_back(samples: ModuleType, tmp_path: Path) -> None:
    samples.write_curves(tmp_path / "trackers", {"train/loss": [2.0, 1.0, 0.5], "validation/top1": [0.25]})
    assert read_history(tmp_path) == {"train/loss": ([1, 2, 3], [2.0, 1.0, 0.5]), "validation/top1": ([1], [0.25])}


def test_a_resumed_run_goes_on_in_another_file(samples: ModuleType, tmp_path: Path) -> None:
    samples.write_curves(tmp_path / "trackers" / "1", {"loss": [4.0, 3.0]})
    samples.write_curves(tmp_path / "trackers" / "2", {"loss": [4.0, 2.5, 2.0]})
    assert read_history(tmp_path) == {"loss": ([1, 2, 3], [4.0, 2.5, 2.0])}


def test_long_curves_are_thinned_and_keep_their_end(samples: ModuleType, tmp_path: Path) -> None:
    samples.write_curves(tmp_path / "trackers", {"loss": [float(i) for i in range(1000)]})
    steps, values = read_history(tmp_path, points=50)["loss"]
    assert 40 <= len(steps) <= 51
    assert steps[0] == 1
    assert (steps[-1], values[-1]) == (1000, 999.0)


@pytest.mark.parametrize("keep", [0, 5, 40, -10])
def test_a_file_that_ends_too_early_is_read_as_far_as_it_goes(samples: ModuleType, tmp_path: Path, keep: int) -> None:
    samples.write_curves(tmp_path / "trackers", {"loss": [3.0, 2.0, 1.0]})
    (file,) = (tmp_path / "trackers").glob("events*")
    file.write_bytes(file.read_bytes()[:keep])
    values = read_history(tmp_path).get("loss", ([], []))[1]
    assert values == [3.0, 2.0, 1.0][: len(values)]
    assert len(values) < 3


def test_files_that_are_none_give_nothing(tmp_path: Path) -> None:
    assert read_history(tmp_path) == {}
    (tmp_path / "trackers").mkdir()
    for number, content in enumerate((os.urandom(1000), b"\xff" * 100, b"\x10" + b"\x00" * 200)):
        (tmp_path / "trackers" / f"events.out.tfevents.{number}").write_bytes(content)
    assert read_history(tmp_path) == {}
