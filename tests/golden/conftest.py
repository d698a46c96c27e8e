"""Golden cases: inputs and outputs of the published implementations.

A test asks for the cases of one or more kinds with `@pytest.mark.golden("folder", "kind", ...)` and takes the
argument `case`. A file belongs to a kind when its name is the kind, or begins with the kind and an underscore.
`SUBNETBENCH_GOLDEN=DIR` runs the same tests on another folder of cases with the same folder names and kinds.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BUNDLED = Path(__file__).parent / "data"


def golden_root() -> Path:
    return Path(os.environ.get("SUBNETBENCH_GOLDEN") or BUNDLED)


class GoldenCase(dict[str, Any]):
    """The arrays of one `.npz` file (or the content of one `.json` file), read lazily and without pickles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.kind = path.stem
        if path.suffix == ".json":
            self.content: Any = json.loads(path.read_text())
            if isinstance(self.content, dict):
                self.update(self.content)
        else:
            with np.load(path, allow_pickle=False) as archive:
                self.update({name: archive[name] for name in archive.files})

    def under(self, prefix: str) -> dict[str, Any]:
        """The entries whose name begins with `prefix`, without it."""
        return {name[len(prefix) :]: value for name, value in self.items() if name.startswith(prefix)}

    def companion(self, file_name: str) -> "GoldenCase":
        """Another file that this one refers to: beside it, else the bundled one of the same folder."""
        beside = self.path.with_name(file_name)
        return GoldenCase(beside if beside.exists() else BUNDLED / self.path.parent.name / file_name)


def belongs(path: Path, kind: str) -> bool:
    return path.stem == kind or path.stem.startswith(kind + "_")


def golden_files(folder: str) -> list[Path]:
    return sorted(p for p in (golden_root() / folder).glob("*") if p.suffix in {".npz", ".json"})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is None:
        return
    folder, *kinds = marker.args
    paths = [p for p in golden_files(folder) if any(belongs(p, kind) for kind in kinds)]
    metafunc.parametrize("case", paths, ids=[p.stem for p in paths], indirect=True)


@pytest.fixture
def case(request: pytest.FixtureRequest) -> GoldenCase:
    return GoldenCase(request.param)
