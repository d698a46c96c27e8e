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
