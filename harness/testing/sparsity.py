"""The check that a method whose config asks for a sparsity offers networks that have it."""

from itertools import count
from typing import Any

from subnetbench.harness.core.tasks import PRIMARY_METRIC
from subnetbench.harness.evaluation.cost import size_metrics
from subnetbench.harness.records.record import is_trivial
from subnetbench.harness.testing.nonconformance import require
from subnetbench.harness.testing.trials import Trials

# Budgets are rounded layer by layer.
TOLERANCE = 1e-3


def check_keeps_its_sparsity(trials: Trials) -> None:
    """A config field `sparsity` is what the record shows, whichever epoch is the best.

    It is the fraction removed of all convolution, linear and attention weights. A second training meets validations that
    fall from epoch to epoch, so that its first weights that can be selected are. Variants with a `capacity` of their own,
    and those of inputs, are free.
    """
    asked = trials.spec.config.get("sparsity")
    if not isinstance(asked, float):
        return
    recorded = {
        line["variant"]: line["value"]
        for line in trials.records.long().to_pylist()
        if line["run_id"] == trials.spec.run_id and line["metric"] == "sparsity" and not is_trivial(line["variant"])
    }
    free = _free(trials)
    _require(asked, {name: value for name, value in recorded.items() if name not in free}, "the record says")
    if not trials.trains:
        return
    metric, ever_worse = PRIMARY_METRIC[trials.spec.task], count()

    def falling(*_: Any) -> dict[str, float]:
        return {metric: -float(next(ever_worse))}

    ended = trials.train(trials.spec, "falling validation", validate=falling)
    found = {
        variant.name: size_metrics(variant.build())["sparsity"]
        for variant in ended.method.variants(ended.modules, ended.context)
        if variant.name not in free
    }
    _require(asked, found, "where the first epoch that can be selected is the best, the network has")


def _free(trials: Trials) -> set[str]:
    ended = trials.straight
    variants = ended.method.variants(ended.modules, ended.context)
    return {variant.name for variant in variants if variant.capacity is not None or variant.origin is not None}


def _require(asked: float, found: dict[str, float], where: str) -> None:
    for name, value in found.items():
        require(
            abs(value - asked) <= TOLERANCE,
            f"{where} {value:.4f}, the config asks for a sparsity of {asked:g} (variant {name}): where a schedule reaches "
            "it inside a stage, say from which epoch on by `Stage(counts_from=)`",
        )
