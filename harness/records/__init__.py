"""Records: what runs leave behind, written by any number of processes at once and read by the leaderboard.

Reading (`subnetbench.harness.records.read`) and merging (`.merge`) import pyarrow; writing does when it writes.
"""

from subnetbench.harness.records.record import RunRecord, Score, Status, is_trivial, write_record

__all__ = ["RunRecord", "Score", "Status", "is_trivial", "write_record"]
