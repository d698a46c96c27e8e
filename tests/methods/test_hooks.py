"""The conformance check that hooks which only return leave the method alone."""

from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from subnetbench.harness.core.config import MethodConfig
from subnetbench.harness.method import TrainableMethod, Variant
from subnetbench.harness.testing.conformance import _check_hooks_only_return
from subnetbench.harness.testing.nonconformance import Nonconformance


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
    _check_hooks_only_return((kind(MethodConfig()), nn.ModuleDict(), SimpleNamespace()))


def test_hooks_that_only_return_pass():
    check(Quiet)


@pytest.mark.parametrize(("kind", "name"), [(Sets, "cache"), (Counts, "planned")])
def test_hooks_that_set_something_are_named(kind, name):
    with pytest.raises(Nonconformance, match=f"set {name}: that belongs in enter_stage"):
        check(kind)
