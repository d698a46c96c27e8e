"""Tuning files: defaults, what is refused, and the files that ship."""

from pathlib import Path

import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.tuning.build_space import build_space
from subnetbench.harness.tuning.describe import describe_tuning
from subnetbench.harness.tuning.tuning_file import TuningFile, read_tuning_file

SHIPPED = sorted((Path(__file__).parents[3] / "sweeps" / "tuning").glob("*.yaml"))


def parse(**fields):
    defaults = {"name": "t", "budget": {"trials": 3}, "methods": [{"method": "dense", "dataset": "emoji"}]}
    return TuningFile.parse({**defaults, **fields})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_files_that_ship_can_be_carried_out(path):
    file = read_tuning_file(path)
    # Files that choose a single thing for a documented experiment have one entry; the others compare methods.
    assert len(file.entries()) >= (1 if path.stem.startswith("selection_") else 6)
    for entry in file.entries():
        config = get_method(entry.method).Config
        space = build_space(entry.method, config, entry.config, entry.space, operating_points=file.operating_points)
        parts = {"config": entry.config, "data": entry.data, "compute": entry.compute, "inputs": entry.inputs}
        resolve(entry.method, entry.dataset, **parts)
        for number, given in enumerate(entry.enqueue):
            space.labels_of(given, f"enqueue[{number}]")


def test_entries_take_what_defaults_say():
    defaults = {"dataset": "emoji", "config": {"epochs": 2, "lr": 0.1}, "enqueue": [{}]}
    (entry,) = parse(defaults=defaults, methods=[{"method": "dense", "config": {"lr": 0.2}}]).entries()
    assert (entry.dataset, entry.config, entry.label) == ("emoji", {"epochs": 2, "lr": 0.2}, "dense")
    assert entry.enqueue == [{}]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"budget": {"trials": 3, "device_hours": 1}}, "either trials or device_hours"),
        ({"budget": {}}, "either trials or device_hours"),
        ({"final_seeds": [0, 1]}, "must be fresh"),
        ({"objectives": ["quality", "cost"], "pruner": "median"}, "none for several objectives"),
        ({"objectives": ["quality", "cost"], "sampler": "cmaes"}, "for one objective"),
        ({"seeds": [0, 1], "pruner": "asha"}, "use wilcoxon"),
        ({"pruner": "wilcoxon"}, "needs several"),
        ({"method": "dense"}, "no such field"),
        ({"methods": []}, "at least 1"),
        ({"name": "../escape"}, "pattern"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, fault):
    with pytest.raises(UserError, match=fault):
        parse(**fields)


def test_two_studies_need_two_labels():
    twice = [{"method": "dense", "dataset": "emoji"}] * 2
    with pytest.raises(UserError, match="give one of them a label"):
        parse(methods=twice).entries()
    labelled = [*twice[:1], {**twice[1], "label": "other"}]
    assert [entry.label for entry in parse(methods=labelled).entries()] == ["dense", "other"]


def test_a_method_with_options_describes_a_file_too():
    file = describe_tuning(
        "dense", "emoji", options={"trials": 2, "config": {"epochs": 1}, "sampler": None, "space": {}}
    )
    assert file.name == "tune-dense-emoji"
    assert file.entries()[0].config == {"epochs": 1}
    with pytest.raises(UserError, match="--trials or --device-hours"):
        describe_tuning("dense", "emoji", options={})
    with pytest.raises(UserError, match="needs a data set"):
        describe_tuning("dense", options={"trials": 2})
    with pytest.raises(TypeError, match="unexpected keyword argument 'trails'"):
        describe_tuning("dense", "emoji", options={"trails": 2})


def test_options_win_over_a_file_where_they_do_not_change_its_studies():
    file = describe_tuning(parse(sampler="random"), options={"trials": 9, "pruner": "median", "seed": 0})
    assert (file.budget.trials, file.sampler.name, file.pruner.name, file.seed) == (9, "random", "median", 0)
    with pytest.raises(UserError, match="belongs into the tuning file"):
        describe_tuning(parse(), options={"config": {"epochs": 1}})


def test_bounds_may_be_written_as_text():
    (bound,) = parse(constraints=["parameters <= 1e5"]).constraints
    assert (bound.metric, bound.at_most, bound.at_least) == ("parameters", 1e5, None)
    with pytest.raises(UserError, match="must look like"):
        parse(constraints=["parameters < 3"])
