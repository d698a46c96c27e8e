"""The conformance suite and short runs that plug-in authors and the project itself test with.

>>> from subnetbench.harness.testing import DATASET_CHECKS, METHOD_CHECKS, check, short_spec, train_here
"""

from typing import TYPE_CHECKING

from subnetbench.harness.core.lazy import lazy_exports

if TYPE_CHECKING:
    from subnetbench.harness.testing.conformance import (
        DATASET_CHECKS,
        METHOD_CHECKS,
        CheckResult,
        check,
    )
    from subnetbench.harness.testing.nonconformance import Nonconformance
    from subnetbench.harness.testing.short_runs import short_spec, train_here, train_inputs
    from subnetbench.harness.testing.trials import Trials

__all__ = [
    "DATASET_CHECKS",
    "METHOD_CHECKS",
    "CheckResult",
    "Nonconformance",
    "Trials",
    "check",
    "short_spec",
    "train_here",
    "train_inputs",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(__name__, __all__)
