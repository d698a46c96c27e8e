"""Scores by item of the records of a folder, read when they are wanted, each file once."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from subnetbench.harness.records.items import Items
from subnetbench.harness.records.items_file import ItemsFault, items_path, read_items
from subnetbench.harness.records.read import RecordSet

NOT_STORED = "no outcomes by item are stored"
ABSENT = "the file of outcomes by item is not there"
_THREADS = 2


class ItemStore:
    """Files of scores by item, by the rows of `RecordSet.runs`."""

    def __init__(self, records: RecordSet) -> None:
        self._records = records
        self._digests: list[str] = []
        self._read: dict[int, Items | str] = {}
        if "items_digest" in records.runs.column_names and len(records.runs):
            self._digests = records.runs["items_digest"].to_pylist()

    @property
    def empty(self) -> bool:
        """Whether no record states a file of scores by item."""
        return not any(self._digests)

    def of(self, record: int) -> Items | str:
        """The scores by item of a record, or why there are none."""
        if record not in self._read:
            self.fetch([record])
        return self._read[record]

    def fetch(self, records: Iterable[int]) -> None:
        """Read the files of several records at once."""
        wanted = [int(record) for record in np.unique(np.fromiter(records, np.int64)) if int(record) not in self._read]
        if not wanted:
            return
        if self.empty:
            self._read |= dict.fromkeys(wanted, NOT_STORED)
            return
        with ThreadPoolExecutor(_THREADS) as pool:
            self._read |= dict(zip(wanted, pool.map(self._load, wanted), strict=True))

    def faults(self) -> list[str]:
        """The files that were wanted and could not be used, with the reason."""
        found = []
        for record, reason in sorted(self._read.items()):
            if isinstance(reason, str) and reason not in (NOT_STORED, ABSENT):
                found.append(f"{self._path(record)}: {reason}")
        return found

    def _load(self, record: int) -> Items | str:
        digest = self._digests[record]
        if not digest:
            return NOT_STORED
        path = self._path(record)
        if path is None:
            return "the id of its record names no file"
        if not path.exists():
            return ABSENT
        try:
            return read_items(path, digest)
        except ItemsFault as fault:
            return str(fault)

    def _path(self, record: int) -> Path | None:
        runs = self._records.runs
        return items_path(runs["file"][record].as_py(), runs["record_id"][record].as_py())
