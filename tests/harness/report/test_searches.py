"""What the report takes over from the files that a search left, whatever is in them."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from subnetbench.harness.report import report_content
from subnetbench.harness.report.searches import MAX_BYTES, read_searches
from subnetbench.harness.report.types import ReportContent


def test_a_study_brings_its_budget_importances_and_best_configuration(
    samples: ModuleType, content: ReportContent
) -> None:
    (study,) = content.to_json()["studies"]
    search = study["search"]
    assert search["budget"] == {"trials": 15, "device_hours": None}
    assert search["device_hours"] == 0.25
    assert (search["sampler"], search["pruner"]) == ("tpe", "asha")
    assert search["notes"] == [f"noted by {samples.MARKUP}"]
    assert search["importances"] == {"top1": [["lr", 0.75], ["mode", 0.2], [samples.MARKUP, 0.05]]}
    (best,) = search["best"]
    assert (best["trial"], best["values"]) == (2, {"top1": 0.5})
    assert best["config"] == {"lr": 0.03, "mode": "a", samples.MARKUP: samples.MARKUP}


@pytest.mark.parametrize("folder", ["records", "trials/records"])
def test_it_is_found_beside_the_trials(tmp_path: Path, folder: str) -> None:
    folder_of_study = tmp_path / "studies" / "one"
    folder_of_study.mkdir(parents=True)
    (folder_of_study / "summary.json").write_text(json.dumps({"study": "t.one", "device_hours": 1.5}))
    (found,) = read_searches([tmp_path / folder / "run.parquet"]).items()
    assert found[0] == "t.one"
    assert found[1].device_hours == 1.5
    assert read_searches([tmp_path / "elsewhere" / "deep" / folder / "run.parquet"]) == {}


@pytest.mark.parametrize(
    "summary",
    [
        "no JSON",
        "[" * 100_000,
        "[]",
        '{"study": 1}',
        '{"study": "s"}',
        '{"study": "s", "objectives": "top1", "budget": 3, "best": {}, "sampler": "tpe", "device_hours": "many"}',
        '{"study": "s", "objectives": [1, {}, {"metric": []}], "budget": {"trials": true}, "best": [1, {"values": 1}]}',
        '{"study": "s", "objectives": [{"metric": "top1"}], "best": [{"trial": {}, "values": [NaN, Infinity]}]}',
        '{"study": "s", "stopped": {"a": []}, "best": [{"config": {"a": {"b": [1]}}}], "device_hours": 1e999}',
        '{"study": "s", "notes": {"a": 1}}',
        f'{{"study": "s", "device_hours": {"9" * 400}}}',
        '{"study": "s", "x": "' + "x" * MAX_BYTES + '"}',
    ],
)
@pytest.mark.parametrize("importances", ['{"top1": {"lr": NaN, "mode": "much", "depth": 0.5}}', '{"top1": [1]}', "["])
def test_files_of_any_kind_do_no_harm(samples: ModuleType, tmp_path: Path, summary: str, importances: str) -> None:
    results = samples.Results(tmp_path)
    score = samples.Score(metric="top1", value=0.5, split="validation", variant="full")
    results.run([score], study="s", trial=0)
    folder = tmp_path / "studies" / "s"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(summary)
    (folder / "importances.json").write_text(importances)
    (study,) = report_content(tmp_path).to_json()["studies"]
    json.dumps(study, allow_nan=False)
    for metric, pairs in _search(study).get("importances", {}).items():
        assert metric == "top1"
        assert pairs in ([], [["depth", 0.5]])


def _search(study: dict[str, Any]) -> dict[str, Any]:
    return study["search"] or {}
