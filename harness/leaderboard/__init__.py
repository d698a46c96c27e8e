"""Leaderboards over records: `Leaderboard(paths)`, `render`, `compare`. Importing this imports pandas, never torch."""

from subnetbench.harness.leaderboard.board import Leaderboard
from subnetbench.harness.leaderboard.formats import FORMATS, render, write
from subnetbench.harness.leaderboard.frames import View
from subnetbench.harness.leaderboard.published import load_published

__all__ = ["FORMATS", "Leaderboard", "View", "load_published", "render", "write"]
