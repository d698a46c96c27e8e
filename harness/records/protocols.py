"""Whether the protocols in records can be true: names that a data set has, and one for each data digest."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from subnetbench.harness.core.protocols import is_protocol, protocols_of
from subnetbench.harness.records.columns import Found, Texts
from subnetbench.harness.records.schema import SCHEMA_VERSION

_COLUMNS = ("dataset", "task", "data_digest", "protocol", "record_id", "status", "schema_version")
_UNDECIDED = "one protocol for this data; records contradict each other, and none has most of them"


def protocol_faults(runs: pa.Table, invalid: np.ndarray) -> Iterator[Found]:
    """Finished records with protocols that are no names, that the data set has not, or that differ for the same data.

    Data sets of plug-ins, and records of later versions, may have other names. `invalid` (runs,) marks the records with
    faults; whoever takes what this yields keeps it up to date, because invalid records have no say.
    """
    if not set(_COLUMNS) <= set(runs.column_names):
        return
    columns = [Texts.of(runs[name]) for name in _COLUMNS[:-1]]
    dataset, task, digest, protocol, _, status = columns
    finished = status.where("finished".__eq__)
    rows = np.flatnonzero(~protocol.where(str.isprintable) | (finished & protocol.where(lambda text: not text.strip())))
    yield Found.alike(rows, "protocol", protocol.take(rows), "a name in printable characters, not empty once finished")
    judged = np.flatnonzero(finished & ~invalid)
    judged = judged[runs["schema_version"].to_numpy()[judged] <= SCHEMA_VERSION]
    yield _unknown(judged, dataset, task, protocol)
    judged = judged[~invalid[judged] & digest.where(bool)[judged]]
    if len(judged):
        yield _contradictions(judged, columns)


def _unknown(rows: np.ndarray, dataset: Texts, task: Texts, protocol: Texts) -> Found:
    stated, which = np.unique(
        np.stack([column.codes[rows] for column in (dataset, task, protocol)]), axis=1, return_inverse=True
    )
    names = [
        (dataset.values[first], task.values[second], protocol.values[third])
        for first, second, third in stated.T.tolist()
    ]
    wrong = [number for number, each in enumerate(names) if not is_protocol(*each)]
    at = np.flatnonzero(np.isin(which, wrong))
    allowed = [_known(*names[number][:2]) for number in which[at].tolist()]
    return Found(rows[at], ["protocol"] * len(at), protocol.take(rows[at]), allowed)


def _known(dataset: str, task: str) -> str:
    return f"a protocol of {dataset}: {', or '.join(protocols_of(dataset, task))}, with what its config adds"


def _contradictions(rows: np.ndarray, columns: list[Texts]) -> Found:
    """Of records of the same data those that do not state the protocol of most; all, where none has most."""
    dataset, task, digest, protocol, record, _ = (column.codes[rows] for column in columns)
    data = np.unique(np.stack([dataset, task, digest]), axis=1, return_inverse=True)[1]
    stated, which = np.unique(np.stack([data, protocol]), axis=1, return_inverse=True)
    # A copy of a record is no second voice.
    voices = np.bincount(np.unique(np.stack([which, record]), axis=1)[0], minlength=stated.shape[1])
    wrong: dict[int, str] = {}
    for one in np.flatnonzero(np.bincount(stated[0]) > 1).tolist():
        names = np.flatnonzero(stated[0] == one)
        most = names[voices[names] == voices[names].max()]
        if len(most) > 1:
            wrong |= dict.fromkeys(names.tolist(), _UNDECIDED)
            continue
        text = f"{columns[3].values[stated[1, most[0]]]}, as in {voices[most[0]]} records of this data"
        wrong |= {name: text for name in names.tolist() if name != most[0]}
    at = np.flatnonzero(np.isin(which, list(wrong)))
    allowed = [wrong[number] for number in which[at].tolist()]
    return Found(rows[at], ["protocol"] * len(at), columns[3].take(rows[at]), allowed)
