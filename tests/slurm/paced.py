"""Methods for the tests of clusters: one that takes its time, one that fails, and one that starts from either."""

import os
import time

from subnetbench.harness.method.registry import register_method
from subnetbench.methods.dense import Dense
from subnetbench.methods.edge_popup import EdgePopup


@register_method("paced")
class Paced(EdgePopup):
    """Edge-popup with a pause in each step: how long a run takes does not depend on how busy the machine is."""

    def training_step(self, modules, step):
        time.sleep(float(os.environ.get("PACE", "0")))
        super().training_step(modules, step)


@register_method("broken")
class Broken(Dense):
    """Fails in its first step, every time."""

    def training_step(self, modules, step):
        raise RuntimeError("this method is broken on purpose")


@register_method("pupil")
class Pupil(Dense):
    """Waits for a teacher: the paced method, unless an input says otherwise."""

    @classmethod
    def default_inputs(cls, config):
        return {"teacher": {"method": "paced", "config": {"network": "conv2", "image_size": 8, "limit_steps": 5}}}
