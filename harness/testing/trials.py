"""The runs of a method that its checks look at: each is made once, when a check first asks for it."""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from subnetbench.harness.distributed.world import open_world
from subnetbench.harness.execution.local import run_locally
from subnetbench.harness.execution.plan import plan_runs
from subnetbench.harness.execution.run import execute
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.method.base import Method, TrainableMethod
from subnetbench.harness.method.context import Context
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.records.read import RecordSet, read_records
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.testing.nonconformance import Nonconformance, require
from subnetbench.harness.testing.short_runs import Validate, short_spec, train_here, train_inputs
from subnetbench.harness.training.monitor import Interrupted
from subnetbench.harness.training.spending import Spending, every_step_counted
from subnetbench.harness.training.trained_run import open_trained_run


@dataclass(frozen=True)
class Ended:
    """A training of one process that has ended: what it left, and what it spent."""

    method: Method[Any]
    modules: nn.ModuleDict
    context: Context
    spending: Spending

    @property
    def weights(self) -> dict[str, Tensor]:
        """All tensors of the modules by name."""
        return dict(self.modules.state_dict())


class Trials:
    """Short runs of one method in one folder, shared by the checks that look at them.

    What a check compares comes from runs of their own: `recorded` is a run as users start it, `straight` a training that
    counts each of its steps, `stopped` one that was interrupted after every step, `other_seed` and `two_ranks` what they
    say. Runs that the method starts from are trained once for all of them.

    Args:
        name: The method.
        folder: An empty folder.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.cls = get_method(name)
        self.trains = issubclass(self.cls, TrainableMethod)

    @cached_property
    def spec(self) -> RunSpec:
        """The method's own tiny config on the embedded data, with seed 0 and one process."""
        return short_spec(self.name)

    @cached_property
    def records(self) -> RecordSet:
        """The records of `recorded` and of its inputs."""
        return read_records([self.recorded])

    @cached_property
    def recorded(self) -> Path:
        """The results folder of a finished run and its inputs.

        Raises:
            Nonconformance: The run does not finish.
        """
        for each in (*self.spec.dependencies(), self.spec):
            _require_finished(each, self.folder, execute(each, self.folder, RunSettings(trackers=())))
        return self.folder

    @cached_property
    def recorded_weights(self) -> dict[str, Tensor]:
        """All tensors of the modules of `recorded`, read from its model file."""
        world = open_world(self.spec.compute)
        try:
            model = RunFolder(self.recorded, self.spec.run_id).model_file
            return dict(open_trained_run(model, world).modules.state_dict())
        finally:
            world.close()

    @cached_property
    def straight(self) -> Ended:
        """A training without a stop, each step of which is counted."""
        with every_step_counted():
            return self.train(self.spec, "straight")

    @cached_property
    def stopped(self) -> Ended:
        """The same training, stopped after every step and resumed each time.

        Raises:
            Nonconformance: It does not come to an end.
        """
        for _ in range(200):
            try:
                return self.train(self.spec, "stopped", stop_after=2)
            except Interrupted:
                continue
        raise Nonconformance("it does not come to an end when it is interrupted and resumed")

    @cached_property
    def other_seed(self) -> Ended:
        """A training with seed 1 that starts from the same inputs."""
        return self.train(self.spec.model_copy(update={"seed": 1}), "other seed")

    @property
    def two_ranks_spec(self) -> RunSpec:
        """The spec with two processes, which starts from the same inputs."""
        return self.spec.model_copy(update={"compute": self.spec.compute.model_copy(update={"processes": 2})})

    @cached_property
    def two_ranks(self) -> RecordSet:
        """The records of a finished run by two processes with gloo, in a folder with nothing but copies of its inputs.

        Raises:
            Nonconformance: The run does not finish.
        """
        spec, folder = self.two_ranks_spec, self.folder / "two ranks"
        for each in spec.dependencies():
            shutil.copytree(
                RunFolder(self._with_inputs, each.run_id).path, RunFolder(folder, each.run_id).path, dirs_exist_ok=True
            )
        statuses = run_locally(plan_runs([spec], folder), folder, RunSettings(trackers=()), slots=2)
        _require_finished(spec, folder, statuses[spec.run_id])
        return read_records([folder])

    def train(
        self, spec: RunSpec, where: str, *, stop_after: int | None = None, validate: Validate | None = None
    ) -> Ended:
        """Train a spec in this process, in a folder of its own (see `train_here`)."""
        spent: list[Spending] = []
        with train_here(
            spec,
            self.folder / where,
            inputs=self._with_inputs,
            stop_after=stop_after,
            validate=validate,
            spent=spent,
        ) as trained:
            return Ended(*trained, spent[0])

    @cached_property
    def _with_inputs(self) -> Path:
        """The folder, with finished inputs in it."""
        train_inputs(self.spec, self.folder)
        return self.folder


def _require_finished(spec: RunSpec, folder: Path, status: str) -> None:
    failure = RunFolder(folder, spec.run_id).failure()
    require(status == "finished", f"the run {status}: {failure and failure.message}")
