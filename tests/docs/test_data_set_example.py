"""The worked example of the documentation runs as it is printed."""

import re
from pathlib import Path

import numpy as np
import pytest

import subnetbench
from subnetbench.harness.core.errors import DataError
from subnetbench.harness.core.registry import load_plugin
from subnetbench.harness.data.registry import DATASETS, get_dataset

DOCS = Path(subnetbench.__file__).parent / "docs"


@pytest.fixture
def leaves(tmp_path: Path):
    (source,) = re.findall(r"```python\n(.*?)```", (DOCS / "add_a_data_set.md").read_text(), re.DOTALL)
    # One path for all tests: a name may be registered by one file only.
    plugin = tmp_path.parent / "leaves.py"
    plugin.write_text(source)
    load_plugin(plugin)
    return get_dataset("leaves")


def write_leaves(root: Path) -> None:
    random = np.random.default_rng(0)
    np.savez(
        root / "leaves.npz",
        images=random.integers(0, 256, (120, 16, 16, 3), np.uint8),
        species=np.array(["oak", "elm", "ash"])[np.arange(120) % 3],
        is_test=np.arange(120) >= 80,
    )


def test_the_example_loads(leaves, tmp_path: Path) -> None:
    write_leaves(tmp_path)
    data = leaves(leaves.Config(train_size=30), tmp_path).load("classification")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [30, 20, 40]
    assert data.test.classes == ("ash", "elm", "oak")
    assert data.test.labels.tolist() == [[2, 1, 0][number % 3] for number in range(80, 120)]
    assert data.digest == leaves(leaves.Config(train_size=30), tmp_path).load("classification").digest


def test_the_example_explains_missing_and_damaged_files(leaves, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        leaves(leaves.Config(), tmp_path).load("classification")
    write_leaves(tmp_path)
    path = tmp_path / "leaves.npz"
    path.write_bytes(path.read_bytes()[:-100])
    assert len(leaves(leaves.Config(), tmp_path).problems()) == 1


def test_every_data_set_is_documented() -> None:
    page = (DOCS / "data_sets.md").read_text()
    for entry in DATASETS.listing():
        if entry.origin == "built in":
            assert f"| `{entry.name}`" in page
