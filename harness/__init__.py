"""The program: what the command line does, from Python.

>>> from subnetbench.harness import run, sweep, tune, Leaderboard, compare
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subnetbench.harness.api import run, sweep
    from subnetbench.harness.leaderboard import Leaderboard
    from subnetbench.harness.leaderboard.compare import compare
    from subnetbench.harness.tuning.tune import tune

__all__ = ["Leaderboard", "compare", "run", "sweep", "tune"]

_HOMES = {
    "run": "subnetbench.harness.api",
    "sweep": "subnetbench.harness.api",
    "tune": "subnetbench.harness.tuning.tune",
    "Leaderboard": "subnetbench.harness.leaderboard",
    "compare": "subnetbench.harness.leaderboard.compare",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: `subnetbench methods` must not wait for torch, nor a leaderboard.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
