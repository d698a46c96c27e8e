"""What is known of a data set without its images: enough to build a network for it, and to say what it was."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from subnetbench.harness.core.tasks import Task

# Open: data sets of plug-ins put here what their own methods want to know.
DataOptions = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DataMetadata:
    """What networks are built from, and kept with the weights of a trained run.

    `classes` are the names of the training classes, in the order of their labels. `image_size` is the native side in
    pixels (None when images differ); `mean` and `std` are per channel, for pixels in [0, 1]. `protocol` names how
    the splits were made, `digest` is of the content of all splits.
    """

    dataset: str
    task: Task
    classes: tuple[str, ...]
    channels: int
    image_size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    protocol: str
    digest: str
    options: DataOptions = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of training classes."""
        return len(self.classes)

    def to_json(self) -> Mapping[str, Any]:
        """As plain JSON, with lists for tuples."""
        plain = asdict(self)
        return {**plain, "classes": list(self.classes), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_json` returned; raises `KeyError` or `TypeError` when it is something else."""
        tuples = {name: tuple(plain[name]) for name in ("classes", "mean", "std")}
        return cls(**{**plain, **tuples})
