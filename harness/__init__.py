"""The program; `subnetbench` has the same names.

>>> from subnetbench.harness import run, sweep, tune, Leaderboard, compare, load_run
"""

from typing import TYPE_CHECKING

from subnetbench.harness.core.lazy import lazy_exports

if TYPE_CHECKING:
    from subnetbench.harness.api.boards import compare
    from subnetbench.harness.api.running import run, sweep
    from subnetbench.harness.api.runs import load_run
    from subnetbench.harness.leaderboard import Leaderboard
    from subnetbench.harness.tuning.tune import tune

__all__ = ["Leaderboard", "compare", "load_run", "run", "sweep", "tune"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(__name__, __all__)
