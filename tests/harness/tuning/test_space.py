"""Search spaces: what a config brings, what a file changes, and what is refused."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.method.registry import METHODS, get_method
from subnetbench.harness.tuning.build_space import build_space, space_entries
from subnetbench.harness.tuning.space import Dimension


@pytest.fixture
def space(plugin):
    def make(entries=None, fixed=None, operating_points=False):
        config = get_method("sleeping").Config
        entries = space_entries(entries or {})
        return build_space("sleeping", config, fixed or {}, entries, operating_points=operating_points)

    return make


def searched(space):
    return {dimension.name: dimension.distribution for dimension in space.dimensions}


def test_the_default_space_is_that_of_the_config(space):
    assert searched(space()) == {
        "x": FloatDistribution(0.0, 1.0),
        "y": FloatDistribution(1e-4, 1.0, log=True),
        "mode": CategoricalDistribution(("a", "b")),
    }


@pytest.mark.parametrize("name", sorted({entry.name for entry in METHODS.listing()} - {"cascade"}))
def test_every_method_but_the_cascade_brings_a_space_of_valid_configs_with_its_default_among_them(name):
    config = get_method(name).Config
    space = build_space(name, config, {}, {}, operating_points=False)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(100):
        config.parse(space.propose(study.ask()))
    of_default = space.labels_of({}, "enqueue")
    assert config.parse(space.config_of(of_default)) == config()
    assert list(of_default) == [d.name for d in space.dimensions if d.active(space.known())]


def test_a_cascade_has_only_operating_points():
    with pytest.raises(UserError, match="nothing to search"):
        build_space("cascade", get_method("cascade").Config, {}, {}, operating_points=False)


def names_and_conditions(method, fixed=None, entries=None):
    entries = space_entries(entries or {})
    space = build_space(method, get_method(method).Config, fixed or {}, entries, operating_points=False)
    return {dimension.name: dict(dimension.when) for dimension in space.dimensions}


def test_fields_that_mean_nothing_are_not_searched():
    with_proxies = ("proxy_anchor", "arcface", "cosface")
    found = names_and_conditions("metric_learning")
    assert found["scale"] == {"loss": with_proxies}
    assert not found["lr"]
    assert names_and_conditions("metric_learning", {"loss": "arcface"})["scale"] == {}
    assert "scale" not in names_and_conditions("metric_learning", {"loss": "triplet"})
    assert "scale" not in names_and_conditions("metric_learning", entries={"loss": {"choice": ["triplet"]}})
    narrowed = names_and_conditions("metric_learning", entries={"scale": {"log": [10, 20]}})
    assert narrowed["scale"] == {"loss": with_proxies}
    always = names_and_conditions("metric_learning", entries={"loss": {"choice": ["cosface", "arcface"]}})
    assert always["scale"] == {}
    assert names_and_conditions("switchnet").keys() == {"lr", "weight_decay", "gradients", "exponent"}
    assert "triplet_margin" in names_and_conditions("switchnet", {"training": "asymmetric"})
    assert "exponent" not in names_and_conditions("switchnet", {"training": "asymmetric"})


def test_a_named_field_that_can_have_no_effect_is_refused():
    with pytest.raises(UserError, match="has no effect: loss is never proxy_anchor or arcface or cosface") as found:
        names_and_conditions("metric_learning", {"loss": "triplet"}, {"scale": {"log": [10, 20]}})
    assert found.value.field == "space.scale"


def test_a_file_narrows_widens_fixes_and_adds(space):
    changed = space(
        {"x": {"uniform": [0.2, 0.4], "step": 0.1}, "batch_size": {"log": [8, 512]}, "mode": "fixed", "y": "default"}
    )
    assert searched(changed) == {
        "x": FloatDistribution(0.2, 0.4, step=0.1),
        "batch_size": IntDistribution(8, 512, log=True),
        "y": FloatDistribution(1e-4, 1.0, log=True),
    }
    assert "y" not in searched(space(fixed={"y": 0.5}))


def test_a_conditional_field_is_proposed_only_where_its_condition_holds(space):
    conditional = space({"y": {"when": {"mode": "b"}}, "x": "fixed"})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    configs = [conditional.propose(study.ask()) for _ in range(40)]
    assert {config["mode"] for config in configs} == {"a", "b"}
    assert all(("y" in config) == (config["mode"] == "b") for config in configs)


def test_choices_may_be_lists():
    lists = Dimension("sizes", CategoricalDistribution(("[1, 2]", "[3]")), ([1, 2], [3]))
    assert [lists.value(label) for label in lists.grid()] == [[1, 2], [3]]
    assert lists.label([3]) == "[3]"


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        ({"xx": "default"}, "did you mean 'x'"),
        ({"size": {"uniform": [1, 4]}}, "operating point"),
        ({"x": {"uniform": [0.0, 1.5]}}, "less than or equal to 1"),
        ({"x": {"uniform": [0.5, 0.1]}}, "lower end comes first"),
        ({"y": {"log": [0.0, 0.1]}}, "positive"),
        ({"mode": {"choice": ["a", "c"]}}, "'a' or 'b'"),
        ({"batch_size": {"uniform": [1.5, 3]}}, "integer"),
        ({"momentum": "default"}, "no such field"),
        ({"batch_size": "default"}, "brings no space"),
        ({"y": {"when": {"nothing": 1}}}, "no field that is known"),
        ({"x": {"uniform": [0, 1], "choice": [1]}}, "one of log, uniform, choice"),
        ({"x": 3}, "must be a mapping, default or fixed"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_its_name(space, entries, fault):
    with pytest.raises(UserError, match=fault) as caught:
        space(entries)
    assert next(iter(entries)) in str(caught.value)


def test_operating_points_are_searched_beside_a_cost(space):
    assert "size" in searched(space({"size": {"uniform": [1, 4]}}, operating_points=True))


def test_a_given_configuration_is_filled_up_with_defaults_and_checked(space):
    assert space().labels_of({"x": 0.25}, "enqueue[0]") == {"x": 0.25, "y": 0.1, "mode": "a"}
    with pytest.raises(UserError, match=r"enqueue\[0\].x: lies outside"):
        space({"x": {"uniform": [0.5, 1.0]}}).labels_of({"x": 0.25}, "enqueue[0]")
    with pytest.raises(UserError, match="is not searched"):
        space().labels_of({"seconds": 3}, "enqueue[0]")
    # A default outside the space is the sampler's to choose.
    assert "x" not in space({"x": {"uniform": [0.6, 1.0]}}).labels_of({}, "enqueue[0]")


def test_a_grid_needs_an_end(space):
    grid = space({"x": {"uniform": [0, 1], "step": 0.25}, "y": {"choice": [0.1, 0.2]}}).grid()
    assert grid["x"] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert grid["y"] == [0.1, 0.2]
    with pytest.raises(UserError, match="grid needs"):
        space().grid()
