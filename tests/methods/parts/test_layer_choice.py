import pytest
import torch
from torch import nn

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.networks.layer_choice import choose_parameters


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2),
        nn.BatchNorm2d(8),
        nn.ConvTranspose1d(8, 4, 5),
        nn.LayerNorm((4, 6)),
        nn.Embedding(10, 6),
        nn.MultiheadAttention(6, 2, add_bias_kv=True),
        nn.Sequential(nn.Linear(6, 3)),
        nn.LSTM(3, 5),
    )


def names(where=None, **options) -> list[str]:
    return [choice.name for choice in choose_parameters(network(), where, **options)]


def test_default_is_convolutions_linear_layers_and_attention_projections():
    assert names() == ["0.weight", "2.weight", "5.in_proj_weight", "5.out_proj.weight", "6.0.weight"]


def test_biases_come_with_their_layers_only_when_asked_for():
    with_biases = names(biases=True)
    assert set(with_biases) - set(names()) == {"0.bias", "2.bias", "5.in_proj_bias", "5.out_proj.bias", "6.0.bias"}
    assert with_biases == [n for n, _ in network().named_parameters() if n in with_biases]


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        (nn.Conv2d, ["0.weight"]),
        ((nn.Linear, nn.Embedding), ["4.weight", "5.out_proj.weight", "6.0.weight"]),
        ("6.*", ["6.0.weight"]),
        (["0", "7.weight_?h_l0"], ["0.weight", "7.weight_ih_l0", "7.weight_hh_l0"]),
        (["!5*", "!2"], ["0.weight", "6.0.weight"]),
        (["5*", "!*.out_proj"], ["5.in_proj_weight"]),
        (lambda name, layer, parameter: isinstance(layer, nn.BatchNorm2d), ["1.weight", "1.bias"]),
    ],
)
def test_choice_by_type_name_or_function(where, chosen):
    assert names(where) == chosen


@pytest.mark.parametrize(
    "where", ["9.*", ["0", "!9"], nn.Conv3d, lambda name, layer, parameter: False, ["1"], ["0", 3]]
)
def test_a_choice_that_matches_nothing_is_refused(where):
    with pytest.raises(UserError, match="where"):
        choose_parameters(network(), where)


def test_fan_in_counts_inputs_per_output_also_for_biases():
    fan_in = {choice.name: choice.fan_in for choice in choose_parameters(network(), biases=True)}
    assert fan_in["0.weight"] == fan_in["0.bias"] == 2 * 9
    assert fan_in["5.in_proj_weight"] == fan_in["5.in_proj_bias"] == 6


def test_a_tied_parameter_is_chosen_once_through_any_of_its_layers():
    embedding, linear = nn.Embedding(7, 3), nn.Linear(3, 7, bias=False)
    linear.weight = embedding.weight
    chosen = choose_parameters(nn.Sequential(embedding, linear))
    assert len(chosen) == 1
    assert chosen[0].parameter is embedding.weight
    assert torch.equal(chosen[0].parameter, linear.weight)
