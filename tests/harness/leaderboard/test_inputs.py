"""Rows of runs that start from others are named by what these differ in."""

import json
from typing import Any

import pytest

from subnetbench.harness.leaderboard import Leaderboard
from subnetbench.harness.leaderboard.configs import labels
from subnetbench.harness.leaderboard.inputs import with_inputs_told_apart
from subnetbench.harness.records import Score
from subnetbench.harness.records.read import read_records

TOWERS: dict[str, Any] = {"method": "two_tower", "dataset": "coco", "config": {"width": 64}, "data": {}, "seed": 3}


def level(method: str, seed: int = 0, teacher: Any = TOWERS, **config: Any) -> dict[str, Any]:
    data = {"size": config.pop("size", 224)}
    return {
        "method": method,
        "dataset": "coco",
        "config": config,
        "data": data,
        "seed": seed,
        "inputs": {"teacher": teacher},
    }


def named(*inputs: dict[str, Any], own: list[dict[str, Any]] | None = None) -> list[str]:
    """The labels of cascades with these inputs; each is another run, as its id says."""
    configs = own or [{} for _ in inputs]
    flat = [{**config, "inputs.levels": f"id-{at}"} for at, config in enumerate(configs)]
    return labels(with_inputs_told_apart(flat, [json.dumps({"inputs": each}) for each in inputs]))


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        pytest.param(
            [{"levels": [level("head_sensitivity", steps=n, seed=n), TOWERS]} for n in (2, 7)],
            ["levels.0.steps=2", "levels.0.steps=7"],
            id="heads",
        ),
        pytest.param(
            [{"levels": [level(m, **c), TOWERS]} for m, c in (("token_masking", {"share": 0.3}), ("clip_student", {}))],
            ["levels.0=token_masking", "levels.0=clip_student"],
            id="methods, whose fields are not compared",
        ),
        pytest.param(
            [
                {"levels": [level("token_masking", masked_share=0.3), TOWERS]},
                {"levels": [level("token_masking", masked_share=0.5), TOWERS]},
                {"levels": [level("fisher_pruning", capacity=0.5), TOWERS]},
            ],
            [
                "levels.0=token_masking, levels.0.masked_share=0.3",
                "levels.0=token_masking, levels.0.masked_share=0.5",
                "levels.0=fisher_pruning",
            ],
            id="both",
        ),
        pytest.param(
            [{"levels": [TOWERS]}, {"levels": [level("fisher_pruning"), TOWERS]}],
            ["levels.0=two_tower", "levels.0=fisher_pruning, levels.1=two_tower"],
            id="numbers of levels",
        ),
        pytest.param(
            [{"teacher": level("triplet", size=n)} for n in (224, 448)],
            ["teacher.size=224", "teacher.size=448"],
            id="data",
        ),
        pytest.param(
            [{"teacher": {**level("triplet", size=n), "config": {"size": n // 2}}} for n in (8, 16)],
            ["teacher.size=4, teacher.data.size=8", "teacher.size=8, teacher.data.size=16"],
            id="fields of one name",
        ),
        pytest.param(
            [{"teacher": level("kd", network=network, preset=preset)} for network, preset in (("a", "x"), ("b", "y"))],
            ["teacher.network=a, teacher.preset=x", "teacher.network=b, teacher.preset=y"],
            id="fields that have columns of their own in runs",
        ),
        pytest.param(
            [{"teacher": level("early_exit", teacher={**TOWERS, "config": {"width": n}})} for n in (64, 96)],
            ["teacher.teacher.width=64", "teacher.teacher.width=96"],
            id="what inputs start from",
        ),
        pytest.param(
            [{"teacher": {**TOWERS, "files": {"clip_path": digest * 32}}} for digest in ("ab", "cd")],
            ["teacher.clip_path=ababababab", "teacher.clip_path=cdcdcdcdcd"],
            id="files",
        ),
        pytest.param(
            [{"teacher": {"run": "triplet-cub-s0-0c1f"}}, {"teacher": {"file": "/tmp/x", "sha256": "0f" * 32}}],
            ["teacher=triplet-cub-s0-0c1f", "teacher=0f0f0f0f0f"],
            id="finished runs and files",
        ),
    ],
)
def test_inputs_are_told_apart_by_what_differs(inputs: list[dict[str, Any]], expected: list[str]) -> None:
    assert named(*inputs) == expected


def test_fields_of_the_run_itself_stay() -> None:
    inputs = {"levels": [level("token_masking", masked_share=0.3), TOWERS]}
    other = {"levels": [level("token_masking", masked_share=0.5), TOWERS]}
    found = named(inputs, inputs, other, own=[{"config.m": 50}, {"config.m": 100}, {"config.m": 50}])
    # The ids of the first two differ here in nothing that their specs say, and so would not be told apart.
    assert found == [
        "m=50, levels.0.masked_share=0.3",
        "m=100, levels.0.masked_share=0.3",
        "m=50, levels.0.masked_share=0.5",
    ]


@pytest.mark.parametrize("spec", ["", "{", "[]", '{"inputs": 3}', '{"inputs": {"levels": [3]}}', "{}"])
def test_records_whose_specs_say_nothing_keep_the_names_of_inputs(spec: str) -> None:
    flat = [{"inputs.levels": "a-1 > b-2"}, {"inputs.levels": "a-3 > b-2"}]
    assert with_inputs_told_apart(flat, [spec, spec]) == flat


def test_rows_of_cascades_are_named_by_their_levels(folder: Any) -> None:
    for share in (0.3, 0.5):
        for seed in (0, 1):
            inputs = {"levels": [level("token_masking", masked_share=share, seed=seed), TOWERS]}
            recipe = {
                "method": "cascade",
                "config": {"m": [50]},
                "inputs": {"levels": [{"run": f"token_masking-{share}"}]},
            }
            score = Score(metric="text_to_image_recall_at_10", value=share, split="test", variant="cascade")
            folder.add(
                method="cascade",
                seed=seed,
                scores=[score],
                config=recipe,
                spec={**recipe, "seed": seed, "inputs": inputs},
            )
    rows = Leaderboard.from_records(read_records(folder.path)).rows
    assert sorted(rows["config"]) == ["levels.0.masked_share=0.3", "levels.0.masked_share=0.5"]
    assert set(rows["seeds"]) == {2}
