"""What the splits of a data set hold, as digests: how two runs know whether they saw the same images.

Needs no torch, because whoever reads a record reads these too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class SplitContent:
    """One split (or gallery): the number of its items, and a digest of all of them with what is known of each.

    The digest covers the images' bytes, their names below the common folder where they are files, labels by the name
    of the class, boxes, captions and ground truth, and the order of it all.
    """

    items: int
    digest: str

    def __str__(self) -> str:
        return f"{self.items} items, digest {self.digest}"


@dataclass(frozen=True)
class DataContent:
    """The content of all splits by name: `train`, `validation`, `test`, and `<split> gallery` where it has its own."""

    splits: Mapping[str, SplitContent]

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        return {name: {"items": split.items, "digest": split.digest} for name, split in self.splits.items()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_json` gave. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        return cls({str(name): SplitContent(int(each["items"]), str(each["digest"])) for name, each in plain.items()})
