"""Settings of runs: the same after a way through JSON, readable where an earlier version wrote them, strict else."""

import json
from pathlib import Path

import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.execution.settings import Callback, RunSettings


def test_settings_are_the_same_after_a_way_through_json():
    settings = RunSettings(
        data_root=Path("/data"),
        trackers=("tensorboard", "aim"),
        sweep="s",
        study="s.m",
        trial=3,
        tuned=True,
        search_cost={"search_trials": 4.0},
        split="validation",
        callback=Callback("package.module:function", {"storage": "x"}),
        rendezvous=Path("/tmp/file"),
        plugins=(Path("/plugin.py"),),
    )
    assert RunSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    assert RunSettings.from_json(json.loads(json.dumps(RunSettings().to_json()))) == RunSettings()
    assert RunSettings.from_json({}) == RunSettings()


def test_settings_in_plan_files_of_earlier_versions_are_read():
    common = json.loads('{"data_root": "/data", "trackers": [], "plugins": ["/p.py"], "sweep": "t"}')
    own = json.loads(
        '{"study": "t.sleeping", "trial": 2, "split": "validation", "reporting": {"storage": "/out/study.log", '
        '"study": "t.sleeping", "trial_id": 2, "pruner": {"name": "median"}}}'
    )
    settings = RunSettings.from_json({**common, **own})
    assert settings.callback is not None
    assert settings.callback.load().__name__ == "connect"
    assert settings.callback.options["storage"] == "/out/study.log"
    assert (settings.plugins, settings.trial, settings.sweep) == ((Path("/p.py"),), 2, "t")


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"trakers": []}, r"settings.trakers: there is no such setting; did you mean 'trackers'\?"),
        ({"trackers": "aim"}, "settings.trackers: is of the wrong type"),
        ({"trial": "3"}, "settings.trial: is of the wrong type"),
        ({"callback": {"function": "a.b:c", "option": {}}}, "settings.callback: has other fields"),
        ({"callback": {"function": "a.b.c"}}, "callback: names no function"),
    ],
)
def test_what_is_no_setting_is_refused_where_it_is_made(plain, message):
    with pytest.raises(UserError, match=message):
        RunSettings.from_json(plain)


@pytest.mark.parametrize("function", ["no.such.module:x", "json:no_such_function"])
def test_a_callback_that_does_not_exist_is_an_error_that_names_it(function):
    with pytest.raises(UserError, match=f"callback: cannot be imported.*{function}"):
        Callback(function).load()
