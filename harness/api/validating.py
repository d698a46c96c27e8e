"""Checking records before they are merged or published. Nothing here imports torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from subnetbench.harness.api.lookup import existing
from subnetbench.harness.records.item_checks import item_findings
from subnetbench.harness.records.read import read_records
from subnetbench.harness.records.validate import Fault


@dataclass(frozen=True)
class Validation:
    """What a check of records found.

    `records` are valid, `invalid` have faults; `files` were read. Of the valid ones, `items` state a file of scores by
    item, of which `items_absent` are not there, and `not_finite` hold values that are not finite, which listings leave
    out. `faults` describes what is wrong, sorted by file and
    run; of very many, the first ten thousand.
    """

    records: int
    invalid: int
    files: int
    faults: tuple[Fault, ...]
    items: int = 0
    items_absent: int = 0
    not_finite: int = 0

    @property
    def exit_status(self) -> int:
        """1 if anything is wrong, else 0."""
        return int(bool(self.faults))

    def to_json(self) -> dict[str, object]:
        """The counts, and the faults as a list of plain dictionaries."""
        return {
            "valid": not self.faults,
            "records": self.records,
            "invalid": self.invalid,
            "files": self.files,
            "items": self.items,
            "items_absent": self.items_absent,
            "not_finite": self.not_finite,
            "faults": [fault.to_json() for fault in self.faults],
        }


def validate(folders: Path | str | Iterable[Path | str]) -> Validation:
    """Check records as every listing does, and describe each fault: what a board checks before it merges a submission.

    Checked are the form of files, the ranges of all known metrics and costs, the names of tasks, splits, statuses and
    precisions, the hashes of configs and specs, and that trivial baselines are possible and the same for the same data.
    A metric that is not known is no fault. Files of scores by item are checked by their digest, their form, and their means,
    which must be the scores of the record; that such a file is not there is counted, but no fault.

    Args:
        folders: Results folders or record files. Given together, a submission and the board that it goes into are checked
            against each other.

    Returns:
        The number of records and the faults; a folder without records is a fault.

    Raises:
        UserError: A folder does not exist.

    Example:
        >>> from subnetbench.harness import api
        >>> checked = api.validate("results/quickstart")
        >>> checked.records, checked.faults, checked.exit_status
        (1, (), 0)
    """
    roots = [Path(folder) for folder in ([folders] if isinstance(folders, Path | str) else folders)]
    records = read_records(existing(roots))
    faults = [
        Fault(path=item.path, run_id="", field="file", value=item.reason, allowed="a sound file of records")
        for item in records.skipped
    ]
    by_item = item_findings(records)
    faults += [*records.faults, *records.not_finite, *by_item.faults]
    if not faults and not len(records.runs):
        faults = [Fault(path=root, run_id="", field="records", value=0, allowed="at least 1") for root in roots]
    faults.sort(key=lambda fault: (str(fault.path), fault.run_id))
    files = {*records.files, *(item.path for item in records.skipped)}
    counts = (by_item.stored, by_item.absent, len({(fault.path, fault.run_id) for fault in records.not_finite}))
    return Validation(len(records.runs), records.invalid, len(files), tuple(faults), *counts)
