"""Small trees of image files, and the program as its users start it."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subnetbench.harness.cli import main

TINY = "network=conv2,image_size=8,epochs=1,batch_size=8,limit_steps=2"


def _picture(path: Path, seed: int) -> None:
    """16 x 16 noise, without compression: all files are equally long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def picture():
    """Write 16 x 16 noise to a path: `picture(path, seed=1)`."""
    return _picture


@pytest.fixture
def images(tmp_path):
    """`data/mine` with 6 training and 3 test images (BMP) of each of two classes; returns its folder."""
    for split, count in (("train", 6), ("test", 3)):
        for c, name in enumerate("ab"):
            for i in range(count):
                _picture(tmp_path / "data" / "mine" / split / name / f"{i}.bmp", 100 * c + i + (split == "test") * 1000)
    return tmp_path / "data" / "mine"


@pytest.fixture
def program(tmp_path, monkeypatch, capfd):
    """Run the program's entry point in an empty folder; returns its whole output.

    In this process, which has imported torch already; runs have processes of their own. `status` is the exit status that
    it must have.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("SUBNETBENCH_DATA", str(tmp_path / "data"))

    def run(*words, status=0):
        monkeypatch.setattr(sys, "argv", ["subnetbench", *map(str, words)])
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, getattr(sys, name))  # which the program replaces
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        found = capfd.readouterr()
        text = found.out + found.err
        assert (ended.value.code or 0) == status, text
        return text

    return run


@pytest.fixture
def train(program):
    """`subnetbench run` of a tiny run on the images of `images`."""

    def run(*words, method="dense", status=0):
        options = ("--data", "path=mine", "--set", TINY, "--device", "cpu", "--tracker", "none", "--out", "res")
        before = [word for word in words if str(word).startswith("--plugin")]
        plugin = words[: 2 * len(before)]
        return program(*plugin, "run", method, "image_folder", *options, *words[len(plugin) :], status=status)

    return run
