"""Leaderboards over records. Importing this imports pandas, never torch.

What changed between two of them: `compare`.
"""

from subnetbench.harness.leaderboard.compare import Differences, Settings, compare
from subnetbench.harness.leaderboard.curves import Line, curves
from subnetbench.harness.leaderboard.formats import FORMATS, render, write
from subnetbench.harness.leaderboard.frames import View
from subnetbench.harness.leaderboard.leaderboard import Leaderboard
from subnetbench.harness.leaderboard.matrix import Matrix, matrices
from subnetbench.harness.leaderboard.published import PublishedValue, load_published

__all__ = [
    "FORMATS",
    "Differences",
    "Leaderboard",
    "Line",
    "Matrix",
    "PublishedValue",
    "Settings",
    "View",
    "compare",
    "curves",
    "load_published",
    "matrices",
    "render",
    "write",
]
