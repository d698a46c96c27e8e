"""Whether files of scores by item agree with their records: digest, form, and means."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from subnetbench.harness.records.columns import MAX_DESCRIBED
from subnetbench.harness.records.items import Items, ScoreKey
from subnetbench.harness.records.items_file import ItemsFault, items_path, read_items
from subnetbench.harness.records.read import RecordSet
from subnetbench.harness.records.validate import Fault

TOLERANCE = 1e-5
"""Most by which the mean of items in single precision may differ from a score."""


@dataclass(frozen=True)
class ItemFindings:
    """What a check of the scores by item of some records found.

    Attributes:
        stored: Records that state a file of scores by item.
        absent: Those of them whose file is not there, which is no fault: records may be handed on without it.
        faults: What is wrong with the others; of very many, the first ten thousand.
    """

    stored: int
    absent: int
    faults: tuple[Fault, ...]


def item_findings(records: RecordSet) -> ItemFindings:
    """Check the files of scores by item of all records that state one."""
    runs = records.runs.select(["record_id", "run_id", "file", "items_digest"]).to_pandas()
    runs = runs.assign(row=np.arange(len(runs)))[runs["items_digest"] != ""]
    absent, faults = 0, list[Fault]()
    for line in runs.itertuples():
        record_file, run_id = str(line.file), str(line.run_id)
        path = items_path(record_file, str(line.record_id))
        if path is None:
            faults.append(_fault(Path(record_file), run_id, "record_id", line.record_id, "a name of a file"))
        elif not path.exists():
            absent += 1
        else:
            try:
                items = read_items(path, str(line.items_digest))
            except ItemsFault as error:
                faults.append(_fault(path, run_id, "items", str(error), "the file whose digest the record states"))
            else:
                faults += _wrong_means(path, run_id, items, _scores(records, int(str(line.row))))
    return ItemFindings(len(runs), absent, tuple(faults[:MAX_DESCRIBED]))


def differing_items(recorded: Path | None, again: Path | None) -> int | None:
    """How many outcomes of single items differ between two files; None where one is absent or cannot be used.

    Of a score that is not there again, or is of different items, all outcomes count.
    """
    if recorded is None or again is None:
        return None
    try:
        a, b = read_items(recorded).values, read_items(again).values
    except ItemsFault:
        return None
    count = 0
    for key, before in a.items():
        after = b.get(key)
        if after is not None and before.of.same_as(after.of):
            same = (before.value == after.value) | (np.isnan(before.value) & np.isnan(after.value))
            count += int((~same).sum())
        else:
            count += len(before.value)
    return count


def disagrees(mean: float, value: float) -> bool:
    """Whether a score is not the mean of its items."""
    return not abs(mean - value) <= TOLERANCE


def _scores(records: RecordSet, row: int) -> dict[ScoreKey, float]:
    chosen = np.flatnonzero(records.scores["run"].to_numpy() == row)
    part = records.scores.take(chosen)
    names = [part[name].to_pylist() for name in ("metric", "split", "variant", "gallery_variant", "value")]
    return {(m, s, v, g): value for m, s, v, g, value in zip(*names, strict=True)}


def _wrong_means(path: Path, run_id: str, items: Items, scores: dict[ScoreKey, float]) -> Iterator[Fault]:
    for key, values in items.values.items():
        name = f"{key[0]} of {key[2]}{f' in {key[3]}' if key[3] else ''} on {key[1]}"
        if key not in scores:
            yield _fault(path, run_id, name, "items of a score that the record lacks", "scores of the record")
        elif disagrees(values.mean, scores[key]):
            yield _fault(path, run_id, name, values.mean, f"{scores[key]:.6g}, the score in the record")


def _fault(path: Path, run_id: str, field: str, value: object, allowed: str) -> Fault:
    shown = value if isinstance(value, float) else str(value)
    return Fault(path=path, run_id=run_id, field=field, value=shown, allowed=allowed)
