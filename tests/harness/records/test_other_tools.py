"""The queries in docs/leaderboards.md, run as they stand there by DuckDB, polars and pandas."""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from subnetbench.harness.leaderboard import Leaderboard
from subnetbench.harness.records import RunRecord, Score, write_record
from subnetbench.harness.records.merge import merge

DOCS = Path(__file__).parents[3] / "docs" / "leaderboards.md"


def _code(language: str, holds: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (found,) = [block for block in blocks if holds in block]
    return str(found)


@pytest.fixture(params=["as recorded", "merged"])
def results(
    make_record: Callable[..., RunRecord],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Path:
    """Two configs, one with a repeated attempt, a failed run, a trial and trivial rows, below ./results/main."""
    folder = tmp_path / "results" / "main"
    for config, value in ((0.5, 0.4), (0.9, 0.2)):
        for seed in range(3):
            score = value + seed / 100
            common = {"seed": seed, "config": {"config": {"sparsity": config}}}
            early = make_record(f"r{config}-{seed}")
            scores = [
                Score(metric="top1", value=score, split="test", variant="full"),
                Score(metric="top1", value=0.1, split="test", variant="trivial"),
                Score(metric="sparsity", value=config, variant="full"),
            ]
            write_record(folder, make_record(f"r{config}-{seed}", **common, scores=scores))
            if seed == 0:
                again = [Score(metric="top1", value=score + 0.05, split="test", variant="full")]
                later = early.finished_at + timedelta(hours=1)
                write_record(folder, make_record(f"r{config}-{seed}", **common, scores=again, finished_at=later))
    write_record(folder, make_record("failed", status="failed", scores=[], seed=8))
    write_record(folder, make_record("trial", study="s", trial=3, seed=9))
    if request.param == "merged":
        merge(folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


def _expected(results: Path) -> np.ndarray:
    frame = Leaderboard(results).frame(metrics=["top1"])
    return frame[["mean", "std", "seeds"]].to_numpy(np.float64)


def test_duckdb(results: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(_code("sql", "read_parquet")).df()
    np.testing.assert_allclose(found[["mean", "std", "seeds"]].to_numpy(np.float64), _expected(results))


def test_polars(results: Path) -> None:
    pytest.importorskip("polars")
    names: dict[str, object] = {}
    exec(_code("python", "scan_parquet"), names)
    found = names["board"].select("mean", "std", "seeds").to_numpy()  # type: ignore[attr-defined]
    np.testing.assert_allclose(found.astype(np.float64), _expected(results))


def test_pandas(results: Path) -> None:
    from subnetbench.harness.records.read import read_records

    frame = read_records("results").long().to_pandas()
    assert frame["record_id"].nunique() == 10
    assert len(frame) == 2 * (3 * 3 + 1) + 1 + 2
