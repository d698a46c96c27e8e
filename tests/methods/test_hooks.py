"""What the conformance suite finds in methods that break its rules."""

from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from subnetbench.harness.core.config import MethodConfig
from subnetbench.harness.method import Stage, TrainableMethod, Variant
from subnetbench.harness.testing.conformance import _check_hooks_only_return
from subnetbench.harness.testing.nonconformance import Nonconformance
from subnetbench.harness.testing.sparsity import check_keeps_its_sparsity
from subnetbench.harness.testing.trials import Ended, Trials
from subnetbench.harness.training.spending import Spending
from subnetbench.methods.gradual_magnitude import GradualMagnitude


class Quiet(TrainableMethod[MethodConfig]):
    """Its hooks only return."""

    def build(self, context):
        return nn.ModuleDict()

    def optimizers(self, modules, stage, context):
        return {}

    def plan_epoch(self, modules, stage, epoch, context):
        return [np.arange(4)]

    def variants(self, modules, context) -> list[Variant]:
        return []


class Sets(Quiet):
    def optimizers(self, modules, stage, context):
        self.cache = {}
        return {}


class Counts(Quiet):
    def plan_epoch(self, modules, stage, epoch, context):
        self.state["planned"] = epoch
        return super().plan_epoch(modules, stage, epoch, context)


def check(kind):
    _check_hooks_only_return(Ended(kind(MethodConfig()), nn.ModuleDict(), SimpleNamespace(), Spending()))


def test_hooks_that_only_return_pass():
    check(Quiet)


@pytest.mark.parametrize(("kind", "name"), [(Sets, "cache"), (Counts, "planned")])
def test_hooks_that_set_something_are_named(kind, name):
    with pytest.raises(Nonconformance, match=f"set {name}: that belongs in enter_stage"):
        check(kind)


def test_a_schedule_that_the_best_epoch_undoes_is_found(tmp_path, monkeypatch):
    """Without a first epoch that counts, the first epoch is kept, which is not yet pruned."""
    monkeypatch.setattr(GradualMagnitude, "tiny", {**GradualMagnitude.tiny, "sparsity": 0.9})
    check_keeps_its_sparsity(Trials("gradual_magnitude", tmp_path / "sound"))
    monkeypatch.setattr(GradualMagnitude, "stages", lambda self, context: [Stage("train", self.config.epochs)])
    with pytest.raises(Nonconformance, match=r"asks for a sparsity of 0\.9 .*counts_from"):
        check_keeps_its_sparsity(Trials("gradual_magnitude", tmp_path / "undone"))


def test_the_runs_of_a_method_are_made_once(tmp_path):
    trials = Trials("dense", tmp_path)
    assert trials.straight is trials.straight
    assert trials.recorded_weights.keys() == trials.straight.weights.keys()
    assert len(trials.records.runs) == 1
