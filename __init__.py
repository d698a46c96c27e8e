"""subnetbench: an honest leaderboard for ways to get a small, fast network out of a big one.

>>> from subnetbench import run, sweep, tune, Leaderboard, compare, load_run

Everything is imported on first use. All functions and their result types are in `subnetbench.harness.api`.
"""

from typing import TYPE_CHECKING

from subnetbench.harness.core.lazy import lazy_exports

if TYPE_CHECKING:
    from subnetbench.harness.api.boards import compare
    from subnetbench.harness.api.claiming import claims
    from subnetbench.harness.api.costs import plan
    from subnetbench.harness.api.exporting import export
    from subnetbench.harness.api.importing import import_
    from subnetbench.harness.api.publishing import publish, report
    from subnetbench.harness.api.reproducing import reproduce
    from subnetbench.harness.api.running import Sweep, run, sweep
    from subnetbench.harness.api.runs import Run, load_run
    from subnetbench.harness.api.states import status
    from subnetbench.harness.api.tracking import history
    from subnetbench.harness.api.trained import embed, evaluate
    from subnetbench.harness.leaderboard import Leaderboard
    from subnetbench.harness.testing.conformance import check
    from subnetbench.harness.tuning.tune import tune

__version__ = "0.1.0"

__all__ = [
    "Leaderboard",
    "Run",
    "Sweep",
    "check",
    "claims",
    "compare",
    "embed",
    "evaluate",
    "export",
    "history",
    "import_",
    "load_run",
    "plan",
    "publish",
    "report",
    "reproduce",
    "run",
    "status",
    "sweep",
    "tune",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(__name__, __all__)
