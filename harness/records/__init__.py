"""Records: what runs leave behind, written by any number of processes at once and read by the leaderboard.

`RunRecord`, `Score` and what names them need neither pyarrow nor torch; the other names import pyarrow on first use.
"""

from typing import TYPE_CHECKING

from subnetbench.harness.core.lazy import lazy_exports

if TYPE_CHECKING:
    from subnetbench.harness.records.read import RecordSet, Skipped, read_records
    from subnetbench.harness.records.record import RunRecord, Score, Status, is_trivial
    from subnetbench.harness.records.write import write_record

__all__ = [
    "RecordSet",
    "RunRecord",
    "Score",
    "Skipped",
    "Status",
    "is_trivial",
    "read_records",
    "write_record",
]

__getattr__, __dir__ = lazy_exports(__name__, __all__)
