"""The made-up results that the browser looks at too, made once."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from subnetbench.harness.report import Options, report_content
from subnetbench.harness.report.content import Content


@pytest.fixture(scope="session")
def samples() -> ModuleType:
    path = Path(__file__).parents[2] / "report_samples.py"
    spec = importlib.util.spec_from_file_location("report_samples", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def results(samples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples.everything(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def content(results: Path) -> Content:
    return report_content(results, Options(title="Samples"))
