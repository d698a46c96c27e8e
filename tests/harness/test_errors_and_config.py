import math
from typing import Annotated, Literal

import pytest
from pydantic import Field

from subnetbench.harness.core.config import Choice, Config, LogUniform, Uniform, operating_point
from subnetbench.harness.core.errors import UserError, nearest, unknown


class Example(Config):
    lr: Annotated[float, Field(gt=0, le=1, description="rate"), LogUniform(1e-3, 1.0)] = 0.1
    layers: Annotated[int, Field(ge=1, description="depth"), Uniform(1, 8), operating_point] = 2
    mode: Annotated[Literal["a", "b"], Field(description="how"), Choice(("a", "b"))] = "a"


def test_unknown_field_names_the_nearest():
    with pytest.raises(UserError, match=r"config\.layer: there is no such field; did you mean 'layers'"):
        Example.parse({"layer": 3})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lr": 0}, ["config.lr", "greater than 0", "got 0", "> 0, <= 1"]),
        ({"lr": 2.0}, ["config.lr", "got 2.0"]),
        ({"layers": "many"}, ["config.layers", "got 'many'"]),
        ({"mode": "c"}, ["config.mode", "got 'c'", "a, b"]),
        ({"lr": math.nan}, ["config.lr"]),
    ],
)
def test_bad_values_name_field_value_and_bounds(values, words):
    with pytest.raises(UserError) as caught:
        Example.parse(values)
    for word in words:
        assert word in str(caught.value)
    assert caught.value.exit_status == 2


def test_marks_are_read_from_the_annotation():
    assert Example.marks("lr") == (LogUniform(1e-3, 1.0), False)
    assert Example.marks("layers") == (Uniform(1, 8), True)
    assert Example.marks("mode") == (Choice(("a", "b")), False)


def test_description_has_bounds_defaults_and_help():
    fields = {field.name: field for field in Example.describe()}
    assert fields["lr"].allowed == "> 0, <= 1"
    assert fields["lr"].default == 0.1
    assert fields["mode"].allowed == "a, b"
    assert fields["layers"].operating_point
    assert fields["layers"].help == "depth"


def test_configs_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Example().lr = 0.2


def test_nearest_refuses_what_is_not_alike():
    assert nearest("edgepopup", ["edge_popup", "dense"]) == "edge_popup"
    assert nearest("zzz", ["edge_popup", "dense"]) is None
    assert "did you mean 'dense'" in str(unknown("method", "dence", ["dense", "triplet"]))
