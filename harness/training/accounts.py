"""From what a training counted to the ledger of its run."""

from collections.abc import Iterator
from typing import Any

from subnetbench.harness.core import environment
from subnetbench.harness.core.hashing import SHORT_DIGITS
from subnetbench.harness.method.base import Method
from subnetbench.harness.method.context import Context
from subnetbench.harness.method.resolve import network_of
from subnetbench.harness.method.starting import STARTED_FROM
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.runs.spent import Ledger, Spent
from subnetbench.harness.training.spending import Spending

OTHER_PROGRAM = "another program"
"""Stands for whoever trained weights that were imported."""


def ledger_of(spending: Spending, train_seconds: float, method: Method[Any], context: Context) -> Ledger:
    """The ledger of a run whose training is over."""
    spec = context.spec
    own = Spent(
        run_id=spec.run_id,
        method=spec.method,
        network=network_of(spec),
        budget=method.budget(context.data),
        training_macs=spending.macs,
        images_seen=spending.images,
        steps=spending.steps,
        train_seconds=train_seconds,
        energy_joules=spending.joules,
        device=environment.device_name(context.device),
    )
    return with_inputs(own, context)


def with_inputs(own: Spent, context: Context) -> Ledger:
    """The ledger of a run that spent `own` itself, from those of its inputs."""
    ledgers = [each.ledger for role in context.inputs for each in context.input_list(role)]
    return Ledger.of(own, [*_of_file(context.spec), *ledgers])


def _of_file(spec: RunSpec) -> Iterator[Ledger]:
    """What another program spent on the weights that a run starts from: nobody knows, and so is the total."""
    digest = spec.files.get(STARTED_FROM)
    if digest is not None:
        yield Ledger(Spent(run_id=f"{OTHER_PROGRAM} {digest[:SHORT_DIGITS]}", method=OTHER_PROGRAM))
