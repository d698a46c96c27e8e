"""subnetbench: an honest leaderboard for ways to get a small, fast network out of a big one."""

__version__ = "0.1.0"
