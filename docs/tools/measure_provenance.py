"""What provenance costs at the start of a run: `python docs/tools/measure_provenance.py FOLDER` (CPU time, this process).

FOLDER is made, with 10,000 files of 20 kB, and may be deleted afterwards.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from subnetbench.harness.data.described import describe
from subnetbench.harness.data.registry import get_dataset
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.runs.code import harness_modules, read_code

T = TypeVar("T")


def timed(what: str, function: Callable[[], T]) -> T:
    began = time.process_time()
    result = function()
    print(f"{what}: {time.process_time() - began:.3f} s")
    return result


def make_files(root: Path) -> None:
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for number in range(10):
            folder = root / "many" / split / f"class{number}"
            folder.mkdir(parents=True)
            for i in range(500):
                (folder / f"{i}.jpg").write_bytes(generator.bytes(20_000))


def main() -> None:
    root = Path(sys.argv[1])
    make_files(root)
    folders, emoji = get_dataset("image_folder"), get_dataset("emoji")
    config = folders.Config.parse({"path": "many"}, where="data")
    many = timed("load 10,000 image files", lambda: folders(config, root).load("classification"))
    timed("digests of 200 MB, first time", lambda: describe(many, [root]))
    timed("digests of the same, again", lambda: describe(many, [root]))
    embedded = emoji(emoji.Config(), root).load("classification")
    timed("digests of the embedded emoji", lambda: describe(embedded, [root]))
    method = get_method("edge_popup")
    timed("code of training and evaluation, once a command", harness_modules)
    timed("code of a method and a data set", lambda: read_code(method, emoji))


if __name__ == "__main__":
    main()
