"""Evaluations of finished runs on other data, or otherwise: their scores are rows of the run, and never mixed up with it."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

import miniatures
from subnetbench.datasets.roxford5k import ROxford5k
from subnetbench.harness.api.runs import load_run
from subnetbench.harness.api.trained import evaluate
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.protocols import is_protocol
from subnetbench.harness.evaluation.scales import MultiScale
from subnetbench.harness.execution.run import execute
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.leaderboard.leaderboard import Leaderboard
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.records import read_records

TINY = {"network": "cnn8-8", "image_size": 16, "dim": 8, "epochs": 1, "limit_steps": 1, "query_limit": 32}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of a run on emoji, and a miniature of ROxford5k in `data`."""
    folder = tmp_path_factory.mktemp("evaluating")
    for seed in (0, 1):
        spec = resolve("triplet", "emoji", config=TINY, seed=seed, compute={"device": "cpu"})
        assert execute(spec, folder / "results", RunSettings(trackers=())) == "finished"
    miniatures.revisited(folder / "data", "roxford5k")
    return folder / "results"


@pytest.fixture
def scored(results: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ROxford5k, "counts", {})

    def score(run: str = "triplet-emoji-s0", **options):
        return evaluate(run, results=results, data_root=results.parent / "data", device="cpu", **options)

    return score


def test_scores_on_other_data_become_rows_of_the_run(results, scored):
    run = next((results / "runs").glob("triplet-emoji-s0-*"))
    before = load_run(run).scores
    found = [scored(f"triplet-emoji-s{seed}", dataset="roxford5k") for seed in (0, 1)]
    assert all(each.record is not None and each.record.is_file() for each in found)
    frame = Leaderboard(results).frame(metrics=["map_trapezoid"])
    there, here = (
        frame[(frame["dataset"] == name) & ~frame["variant"].str.startswith("trivial")].iloc[0]
        for name in ("roxford5k", "emoji")
    )
    assert (there["config_hash"], there["method"], there["budget"]) == tuple(here[["config_hash", "method", "budget"]])
    # Both seeds are in the row, ranked by what the field reports.
    values = [
        s.value
        for each in found
        for s in each.scores
        if s.metric == "map_trapezoid" and not s.variant.startswith("trivial")
    ]
    assert there["seeds"] == 2
    assert there["mean"] == pytest.approx(sum(values) / 2)
    assert "map_trapezoid" in Leaderboard(results).default_metrics
    pd.testing.assert_frame_equal(load_run(run).scores, before)


def test_other_sizes_and_scales_are_other_protocols(scored):
    ways = [
        {"dataset": "roxford5k"},
        {"dataset": "roxford5k", "image_size": 24},
        {"image_size": 24, "scales": (1, 0.5)},
    ]
    records = [scored(**way).record for way in ways]
    assert len({path.name for path in records}) == 3
    protocols = read_records(records, ("dataset", "protocol")).runs.select(["dataset", "protocol"]).to_pylist()
    assert all(is_protocol(each["dataset"], "retrieval", each["protocol"]) for each in protocols)
    assert len({each["protocol"] for each in protocols}) == 3
    assert scored().record is None  # the scores that the run has anyway
    assert scored(dataset="roxford5k", record=False).record is None


def test_the_gallery_of_another_run(scored):
    options = {"dataset": "roxford5k", "record": False}
    own, same, other = (
        {s.metric: s.value for s in scored(**options, **more).scores if s.split and "trivial" not in s.variant}
        for more in ({}, {"gallery": "triplet-emoji-s0"}, {"gallery": "triplet-emoji-s1"})
    )
    assert same == own
    assert other != own


def test_what_does_not_fit_is_refused(scored, results):
    with pytest.raises(UserError, match="scales"):
        scored(scales=(1, -0.5))
    spec = resolve(
        "dense", "emoji", config={"network": "conv2", "image_size": 8, "epochs": 0}, compute={"device": "cpu"}
    )
    assert execute(spec, results, RunSettings(trackers=())) == "finished"
    with pytest.raises(UserError, match="belongs to retrieval"):
        scored("dense-emoji-s0", scales=(1, 0.5))
    wide = resolve("triplet", "emoji", config={**TINY, "dim": 4}, seed=2, compute={"device": "cpu"})
    assert execute(wide, results, RunSettings(trackers=())) == "finished"
    with pytest.raises(UserError, match="the same dimensions"):
        scored(gallery="triplet-emoji-s2")


def test_the_mean_over_scales():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(MultiScale(network, [1])(images), normalize(network(images)))
    half = nn.functional.interpolate(images, scale_factor=0.5, mode="bilinear", align_corners=False)
    both = normalize(normalize(network(images)) + normalize(network(half)))
    torch.testing.assert_close(MultiScale(network, [1, 0.5])(images), both)
