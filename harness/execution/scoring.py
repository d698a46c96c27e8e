"""The scores that a finished run records: of which splits, and what is measured only once."""

import logging
from typing import Any

from torch import nn

from subnetbench.harness.method.base import Method
from subnetbench.harness.method.context import Context
from subnetbench.harness.records import Score

_log = logging.getLogger(__name__)


def final_scores(method: Method[Any], modules: nn.ModuleDict, context: Context, split: str = "test") -> list[Score]:
    """Scores of a trained run on `split`; beside those on the test split also those on the validation split.

    Costs do not depend on a split: they are measured on the first one alone. Trials of a search ask for `validation`
    and get nothing else, so they never touch the test split.
    """
    scores = method.evaluate(modules, context, split)
    if split != "test":
        return scores
    if not len(context.data.validation):
        _log.warning("%s has no validation images: no validation scores are recorded", context.spec.dataset)
        return scores
    again = method.evaluate(modules, context.without_costs(), "validation")
    return scores + [score for score in again if score.split == "validation"]
