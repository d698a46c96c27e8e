"""The items of a split one by one, stored so that a difference between two splits can be named.

A list is a file called by the digest of its split, so that all runs of a results folder that saw the same share one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from subnetbench.harness.core.files import publish_table

FOLDER = "manifests"
"""Below a results folder."""
_SHOWN = 3


@dataclass(frozen=True)
class Items:
    """Of each image file of a split: its name, the digest of its content, and its class."""

    names: Sequence[str]
    digests: Sequence[str]
    classes: Sequence[str]

    def write(self, results: Path, digest: str) -> None:
        """Store the list of the split with this digest, unless it is there. Raises `SubnetbenchError`."""
        path = _path(results, digest)
        if not path.exists():
            columns = {"name": self.names, "digest": self.digests, "class": self.classes}
            arrays = {name: pa.array(column, pa.string()) for name, column in columns.items()}
            publish_table(pa.table(arrays), path, overwrite=True)

    @classmethod
    def read(cls, results: Path, digest: str) -> Self | None:
        """The list of the split with this digest, or None where it is not stored, or damaged."""
        try:
            table = pq.read_table(_path(results, digest), columns=["name", "digest", "class"])
            return cls(*(table[name].to_pylist() for name in ("name", "digest", "class")))
        except (OSError, pa.ArrowException, KeyError):
            return None


def _path(results: Path, digest: str) -> Path:
    return results / FOLDER / f"{Path(digest).name}.parquet"


def changes(before: Items, now: Items) -> str:
    """What changed between two lists in words, such as `2 images added: a/9.png, b/7.png; 1 changed: a/b.png`."""
    old = dict(zip(before.names, zip(before.digests, before.classes, strict=True), strict=True))
    new = dict(zip(now.names, zip(now.digests, now.classes, strict=True), strict=True))
    both = [name for name in old if name in new]
    parts = [
        _named("added", [name for name in new if name not in old]),
        _named("removed", [name for name in old if name not in new]),
        _named("changed", [name for name in both if old[name][0] != new[name][0]]),
        _named("in another class", [name for name in both if old[name][1] != new[name][1]]),
    ]
    return "; ".join(filter(None, parts)) or "the same images with other captions, boxes, ground truth or order"


def _named(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names)} {'image' if len(names) == 1 else 'images'} {what}: {shown}"
