"""What the report says of the made-up results, made once."""

from pathlib import Path
from types import ModuleType

import pytest

from subnetbench.harness.report import Options, report_content
from subnetbench.harness.report.types import ReportContent


@pytest.fixture(scope="session")
def results(samples: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples.everything(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def content(results: Path) -> ReportContent:
    return report_content(results, Options(title="Samples"))
