import json

import pytest

from subnetbench.harness.leaderboard import configs


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"teacher": {"run": "triplet-0c1f"}}, {"inputs.teacher.run": "triplet-0c1f"}),
        ({"levels": [{"run": "a-1"}, {"run": "b-2"}]}, {"inputs.levels": "a-1 > b-2"}),
        ({"levels": [{"sha256": "00ff"}, {"run": "b-2"}]}, {"inputs.levels": "00ff > b-2"}),
        ({"levels": [{}, 3, []]}, {"inputs.levels": " > 3 > []"}),
    ],
)
def test_what_a_run_starts_from_is_named_in_short(inputs, expected):
    assert configs.flatten(json.dumps({"config": {"m": [50]}, "inputs": inputs})) == {"config.m": "[50]", **expected}


def test_labels_say_what_differs_with_four_digits_of_long_numbers():
    found = configs.labels(
        [
            {"config.lr": 0.0123919811514511, "config.k": 3, "config.epochs": 5},
            {"config.lr": 0.1, "config.k": 3, "config.epochs": 5},
            {"config.lr": 123456.75, "config.k": 12345678, "config.epochs": 5},
        ]
    )
    assert found == ["lr=0.01239, k=3", "lr=0.1, k=3", "lr=1.235e+05, k=12345678"]
    assert configs.labels([{"config.lr": 0.1}]) == [""]


def test_labels_show_all_digits_where_four_would_make_configs_look_alike():
    close = [{"config.lr": 0.0123919811514511}, {"config.lr": 0.0123919811514512}]
    assert configs.labels(close) == ["lr=0.0123919811514511", "lr=0.0123919811514512"]
