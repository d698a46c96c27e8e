"""Leaderboards over records. Importing this imports pandas, never torch.

What changed between two of them: `subnetbench.harness.leaderboard.compare`.
"""

from subnetbench.harness.leaderboard.board import Leaderboard
from subnetbench.harness.leaderboard.formats import FORMATS, render, write
from subnetbench.harness.leaderboard.frames import View
from subnetbench.harness.leaderboard.published import load_published

__all__ = ["FORMATS", "Leaderboard", "View", "load_published", "render", "write"]
