"""Studies: what is proposed, what comes of it, and what survives, with runs that take no time."""

import json

import pytest
from optuna.trial import TrialState

from subnetbench.harness.core.errors import SubnetbenchError, UserError
from subnetbench.harness.tuning.attributes import REASON, SAME_AS
from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.storage import only_driver, open_storage


def params(search):
    return [trial.params for trial in search.trials()]


def states(search):
    return [trial.state.name for trial in search.trials()]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "gp", "random", "qmc", "nsga2"])
def test_proposals_are_a_function_of_the_seed(study, sampler):
    one = study(sampler=sampler, folder="one", budget={"trials": 14}).search
    two = study(sampler=sampler, folder="two", budget={"trials": 14}).search
    other = study(sampler=sampler, folder="three", seed=1, budget={"trials": 1}).search
    assert params(one) == params(two)
    assert params(one)[0] != params(other)[0]
    assert len({json.dumps(p, sort_keys=True) for p in params(one)}) == 14


@pytest.mark.parametrize("sampler", ["tpe", "qmc", "cmaes", "nsga2"])
def test_a_driver_that_starts_again_after_every_trial_proposes_the_same(study, sampler):
    straight = study(sampler=sampler, folder="straight", budget={"trials": 13}).search
    for target in (1, 2, 11, 12, 13):
        restarted = study(sampler=sampler, folder="restarted", budget={"trials": target}).search
    assert params(restarted) == params(straight)
    assert [t.values for t in restarted.trials()] == [t.values for t in straight.trials()]


@pytest.mark.parametrize("kept", range(1, 5))
def test_a_driver_that_died_while_it_asked_proposes_the_same(study, tmp_path, kept):
    straight = study(folder="straight", budget={"trials": 13}).search
    study(folder="cut", budget={"trials": 12})
    journal = tmp_path / "cut" / "study.log"
    whole = (tmp_path / "straight" / "study.log").read_text().splitlines()
    of_last = [i for i, line in enumerate(whole) if json.loads(line)["op_code"] == 4][-1]
    # The last trial as a driver leaves it that dies after creating it and after each of its parameters.
    journal.write_text("\n".join(whole[: of_last + kept]) + "\n")
    search = study(folder="cut", budget={"trials": 13}).search
    assert params(search) == params(straight)
    assert states(search) == ["COMPLETE"] * 13


def test_what_is_evaluated_is_what_is_stored_bit_for_bit(study):
    done = study(budget={"trials": 12})
    folder = done.launcher.results / "runs"
    given = []
    for run_id in done.launcher.started:
        config = json.loads((folder / run_id / "spec.json").read_text())["config"]
        given.append({name: config[name] for name in ("x", "y", "mode")})
    assert given == params(done.search)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_target_is_a_number_of_completed_trials(study, workers):
    assert len(study(budget={"trials": 5}, workers=workers).search.trials()) == 5
    again = study(budget={"trials": 5}, workers=workers)
    assert again.launcher.started == []
    assert len(study(budget={"trials": 8}, workers=workers).search.trials()) == 8


def test_the_budget_may_be_device_hours(study):
    # Each run says that it took 36 s: one hundredth of an hour.
    search = study(budget={"device_hours": 0.05}).search
    assert search.completed() == 5
    assert search.device_hours() == pytest.approx(0.05)


def test_trials_score_the_validation_split_and_say_which_trial_they_are(study):
    launcher = study(budget={"trials": 3}).launcher
    assert [s.split for s in launcher.given] == ["validation"] * 3
    assert [(s.study, s.trial) for s in launcher.given] == [("t.sleeping", i) for i in range(3)]


def test_a_slot_does_not_wait_for_the_slowest(study):
    slow: list[str] = []

    def ends(spec):
        slow.extend([spec.run_id] if not slow else [])
        others_done = len(done) >= 9
        if spec.run_id == slow[0] and not others_done:
            return None
        done.append(spec.run_id)
        return "finished"

    done: list[str] = []
    search = study(ends=ends, workers=2).search
    assert done[-1] == slow[0]
    assert states(search) == ["COMPLETE"] * 10


def test_failed_trials_keep_their_reason_and_stop_nothing(study):
    done = study(ends=lambda spec: "failed:nan" if spec.config["x"] > 0.6 else "finished", budget={"trials": 25})
    failed = [t for t in done.search.trials() if t.state == TrialState.FAIL]
    assert failed
    assert all(t.params["x"] > 0.6 and t.user_attrs[REASON]["kind"] == "nan" for t in failed)
    assert done.search.completed() == 25
    # The sampler learns from failures: it does not stay where everything fails.
    assert len(failed) < 12


def test_a_configuration_that_fails_is_run_once_and_not_proposed_for_ever(study):
    entry = {"space": {"x": {"choice": [0.1, 0.9]}, "y": {"choice": [0.1]}, "mode": "fixed"}}
    done = study(ends=lambda spec: "failed" if spec.config["x"] > 0.6 else "finished", entry=entry)
    assert len(done.launcher.started) == 2
    assert done.search.completed() == 10
    again = [t for t in done.search.trials() if t.state == TrialState.FAIL and SAME_AS in t.user_attrs]
    assert all("failed before, as trial" in t.user_attrs[REASON]["message"] for t in again)


def test_a_study_in_which_everything_fails_ends(study):
    done = study(ends=lambda spec: "failed:out-of-memory")
    assert done.search.stopped == "11 trials failed"
    assert done.search.best() == []
    one = {"space": {"x": {"choice": [0.5]}, "y": "fixed", "mode": "fixed"}}
    assert "nothing new" in study(ends=lambda spec: "failed", folder="one", entry=one).search.stopped


def test_a_trial_whose_processes_died_is_marked_so_and_tried_again(study):
    died: list[str] = []

    def ends(spec):
        if spec.config["x"] > 0.5 and spec.run_id not in died:
            died.append(spec.run_id)
            return "failed:killed"
        return "finished"

    search = study(ends=ends).search
    assert died
    for trial in search.trials(TrialState.FAIL):
        assert trial.user_attrs[REASON]["kind"] == "killed"
        (retried,) = [t for t in search.trials() if t.user_attrs.get("retry_of") == trial.number]
        assert (retried.state, retried.params) == (TrialState.COMPLETE, trial.params)


def test_a_trial_that_dies_again_and_again_is_given_up(study):
    entry = {"enqueue": [{"x": 0.9}]}
    search = study(ends=lambda spec: "failed:killed" if spec.config["x"] == 0.9 else "finished", entry=entry).search
    assert [t.number for t in search.trials(TrialState.FAIL) if t.params["x"] == 0.9] == [0, 1]
    assert search.completed() == 10


def test_the_same_configuration_twice_is_one_run_and_two_trials(study):
    entry = {"space": {"x": {"choice": [0.1, 0.2]}, "y": {"choice": [0.1]}, "mode": "fixed"}}
    done = study(entry=entry, workers=2, budget={"trials": 6})
    assert len(set(done.launcher.started)) == len(done.launcher.started) == 2
    assert states(done.search) == ["COMPLETE"] * 6
    by_x = {}
    for trial in done.search.trials():
        by_x.setdefault(trial.params["x"], set()).add(trial.value)
    assert all(len(values) == 1 for values in by_x.values())


@pytest.mark.parametrize("pruner", ["median", "hyperband", "asha"])
def test_pruned_trials_count_and_are_never_the_best(study, pruner):
    done = study(ends=lambda spec: "pruned" if spec.config["x"] < 0.4 else "finished", pruner=pruner)
    assert done.search.completed() == 10
    assert "PRUNED" in states(done.search)
    assert done.search.best()[0].state == TrialState.COMPLETE
    assert all(settings.callback is not None for settings in done.launcher.given)


def test_a_grid_is_tried_whole_and_then_the_study_ends(study):
    entry = {"space": {"x": {"uniform": [0, 1], "step": 0.5}, "y": "fixed"}}
    search = study(sampler="grid", entry=entry).search
    assert sorted((p["x"], p["mode"]) for p in params(search)) == [(x, m) for x in (0.0, 0.5, 1.0) for m in "ab"]
    assert search.stopped == "the whole grid has been tried"


def test_several_objectives_give_a_front_in_which_none_beats_another(study):
    entry = {"space": {"size": {"uniform": [1, 6]}}}
    search = study(objectives=["quality", "cost"], entry=entry, budget={"trials": 25}).search
    front = search.best()
    values = [trial.values for trial in front]
    for trial in search.trials():
        beaten = [v for v in values if v[0] >= trial.values[0] and v[1] <= trial.values[1]]
        assert beaten, "every trial is on the front or beaten by one that is"
    assert [v for v in values if any(o != v and o[0] >= v[0] and o[1] <= v[1] for o in values)] == []
    assert {trial.number for trial in front} <= {trial.number for trial in search.study.best_trials}


def test_constraints_are_kept_by_selection_and_stored_in_the_study(study):
    entry = {"space": {"size": {"uniform": [1, 6]}}}
    search = study(constraints=[{"metric": "parameters", "at_most": 250}], entry=entry, budget={"trials": 20}).search
    sizes = {trial.number: trial.params["size"] for trial in search.trials()}
    assert max(sizes.values()) > 2
    (best,) = search.best()
    assert sizes[best.number] <= 2
    assert best.value == max(t.value for t in search.trials() if t.params["size"] <= 2)
    assert search.study.best_trial.params["size"] <= 2


def test_wilcoxon_prunes_a_configuration_after_some_of_its_seeds(study):
    entry = {"enqueue": [{"x": 0.3, "y": 0.01}, {"x": 1.0, "y": 1.0}, {"x": 0.31, "y": 0.01}]}
    done = study(pruner="wilcoxon", seeds=list(range(8)), entry=entry, budget={"trials": 3}, final_seeds=[])
    assert states(done.search)[1] == "PRUNED"
    assert 8 < len(done.launcher.started) < 24
    first = done.search.trials()[0]
    assert first.value == pytest.approx(0.99 + 0.001 * sum(seed % 7 for seed in range(8)) / 8)


def test_a_conditional_space_is_searched_and_proposed_again(study):
    entry = {"space": {"y": {"when": {"mode": "b"}}}}
    search = study(entry=entry, folder="straight", budget={"trials": 14}).search
    assert {p["mode"] for p in params(search)} == {"a", "b"}
    assert all(("y" in p) == (p["mode"] == "b") for p in params(search))
    for target in (12, 14):
        again = study(entry=entry, folder="again", budget={"trials": target}).search
    assert params(again) == params(search)


def test_given_configurations_come_first_and_once(study):
    entry = {"enqueue": [{}, {"x": 0.25, "mode": "b"}]}
    study(entry=entry, budget={"trials": 1})
    search = study(entry=entry, budget={"trials": 4}).search
    assert params(search)[:2] == [{"x": 0.5, "y": 0.1, "mode": "a"}, {"x": 0.25, "y": 0.1, "mode": "b"}]
    assert len(search.trials()) == 4


def test_a_warm_start_learns_from_an_earlier_study_and_tries_its_best_first(study, tmp_path):
    earlier = study(folder="earlier", budget={"trials": 12}).search
    entry = {"warm_start": [str(tmp_path / "earlier" / "study.log")]}
    for target in (2, 4):
        search = study(folder="later", entry=entry, budget={"trials": target}).search
    assert params(search)[0] == earlier.best()[0].params
    assert len(search.trials()) == 4
    assert len(search.study.trials) == 12 + 4
    with pytest.raises(UserError, match="no such journal"):
        study(folder="none", entry={"warm_start": [str(tmp_path / "nothing.log")]})


def test_another_definition_under_the_same_name_is_refused(study):
    study(budget={"trials": 1})
    with pytest.raises(UserError, match="exists with another sampler"):
        study(sampler="random", budget={"trials": 1})
    with pytest.raises(UserError, match="exists with another space"):
        study(entry={"space": {"x": "fixed"}}, budget={"trials": 1})


def test_two_drivers_never_work_on_the_same_studies(study, tmp_path):
    study(budget={"trials": 1})
    with only_driver(tmp_path / "out"), pytest.raises(SubnetbenchError, match="another process is tuning"):
        study(budget={"trials": 2})


def test_runs_that_finished_behind_the_drivers_back_are_counted(study):
    class Died(Exception):
        pass

    def dies(spec):
        finished.append(spec.run_id)
        if len(finished) == 4:
            raise Died
        return "finished"

    finished: list[str] = []
    with pytest.raises(Died):
        study(ends=dies, workers=3, budget={"trials": 6})
    done = study(workers=3, budget={"trials": 6})
    assert states(done.search) == ["COMPLETE"] * 6
    # What was under way is resumed, what has its result is not run again.
    assert not set(finished[:3]) & set(done.launcher.started)


def test_a_journal_cut_in_the_middle_of_a_line_is_still_written(study, tmp_path):
    study(budget={"trials": 5})
    journal = tmp_path / "out" / "study.log"
    for cut in (1, 7, 40):
        content = journal.read_bytes()
        journal.write_bytes(content[:-cut])
        search = study(budget={"trials": 6}).search
        assert search.completed() == 6
    assert [t.number for t in search.trials()] == list(range(len(search.trials())))
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_storages_that_do_not_exist_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such storage"):
        open_storage("mysql://somewhere/db")
    with pytest.raises(SubnetbenchError, match="cannot be opened"):
        open_storage("postgresql://nobody@127.0.0.1:1/none")
    (tmp_path / "text.log").write_text('{"this": "is not a journal"}\n')
    with pytest.raises(SubnetbenchError, match="not a journal"):
        open_storage(str(tmp_path / "text.log"))


def test_a_pruner_needs_trials_of_equal_budgets(study):
    entry = {"space": {"size": {"uniform": [1, 3]}}}
    constraints = [{"metric": "parameters", "at_most": 250}]
    with pytest.raises(UserError, match="unequal budgets"):
        study(entry=entry, constraints=constraints, pruner="median")


def test_studies_of_one_file_share_the_slots(study):
    methods = [
        {"method": "sleeping", "dataset": "blank", "label": "one"},
        {"method": "sleeping", "dataset": "blank", "label": "two", "config": {"mode": "b"}},
    ]
    done = study(methods=methods, workers=2, budget={"trials": 4})
    assert [search.completed() for search in done.searches] == [4, 4]
    assert isinstance(done.searches[1], Search)
    assert done.searches[1].name == "t.two"
