"""What methods and data sets there are, and what each takes. Listing imports none of them."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subnetbench.harness.core.config import ConfigField
from subnetbench.harness.core.errors import DataError
from subnetbench.harness.core.paths import data_folder
from subnetbench.harness.core.registry import Entry
from subnetbench.harness.data.registry import DATASETS, get_dataset
from subnetbench.harness.method.registry import METHODS, get_method

if TYPE_CHECKING:
    from subnetbench.harness.data import Dataset
    from subnetbench.harness.data.duplicates import Duplicates


@dataclass(frozen=True)
class MethodDescription:
    """What a method says about itself."""

    name: str
    tasks: tuple[str, ...]
    paper: str
    about: str
    config: tuple[ConfigField, ...]


@dataclass(frozen=True)
class DatasetDescription:
    """What a data set says about itself."""

    name: str
    tasks: tuple[str, ...]
    licence: str
    citation: str
    source: str
    about: str
    config: tuple[ConfigField, ...]


@dataclass(frozen=True)
class DatasetCheck:
    """The data of one task of a data set: numbers of images, evaluation protocol, content digest."""

    task: str
    train: int
    validation: int
    test: int
    protocol: str
    digest: str


def methods() -> list[Entry]:
    """All methods by name, with one line about each and where they come from.

    Example:
        >>> from subnetbench.harness import api
        >>> "edge_popup" in [entry.name for entry in api.methods()]
        True
    """
    return METHODS.listing()


def datasets() -> list[Entry]:
    """All data sets by name, with one line about each and where they come from.

    Example:
        >>> from subnetbench.harness import api
        >>> [entry.origin for entry in api.datasets() if entry.name == "emoji"]
        ['built in']
    """
    return DATASETS.listing()


def describe_method(name: str) -> MethodDescription:
    """A method's tasks, paper and config: defaults, bounds, search space.

    Args:
        name: Name of the method.

    Raises:
        UserError: There is no such method.

    Example:
        >>> from subnetbench.harness import api
        >>> fields = {field.name: field for field in api.describe_method("edge_popup").config}
        >>> fields["sparsity"].default, fields["sparsity"].allowed
        (0.5, '>= 0, < 1')
    """
    method = get_method(name)
    return MethodDescription(name, tuple(method.tasks), method.paper, _about(method), tuple(method.Config.describe()))


def describe_dataset(name: str) -> DatasetDescription:
    """A data set's tasks, licence, citation, source and config.

    Args:
        name: Name of the data set.

    Raises:
        UserError: There is no such data set.

    Example:
        >>> from subnetbench.harness import api
        >>> "retrieval" in api.describe_dataset("emoji").tasks
        True
    """
    found = get_dataset(name)
    tasks, config = tuple(found.tasks), tuple(found.Config.describe())
    return DatasetDescription(name, tasks, found.licence, found.citation, found.source, _about(found), config)


def check_dataset(
    name: str,
    *,
    data: Mapping[str, Any] | None = None,  # open: fields of the data set's config
    data_root: Path | str | None = None,
) -> list[DatasetCheck]:
    """Load a data set for each of its tasks, and say what is in it.

    Args:
        name: Name of the data set.
        data: Fields of its config.
        data_root: Folder of data sets; None: `$SUBNETBENCH_DATA`, or a folder in the user's cache.

    Raises:
        UserError: There is no such data set, or a field cannot be used.
        DataError: Files are missing, incomplete or corrupt; the message has a line for each.

    Example:
        >>> from subnetbench.harness import api
        >>> [check.task for check in api.check_dataset("emoji", data={"train_size": 400})]
        ['classification', 'retrieval', 'text_image']
    """
    dataset = _open_dataset(name, data, data_root)
    problems = dataset.problems()
    if problems:
        raise DataError("\n".join(f"{name}: {problem}" for problem in problems))
    checks = []
    for task in dataset.tasks:
        found = dataset.load(task)
        sizes = len(found.train), len(found.validation), len(found.test)
        checks.append(DatasetCheck(task, *sizes, found.protocol, found.digest))
    return checks


def find_duplicates(
    name: str,
    *,
    data: Mapping[str, Any] | None = None,  # open: fields of the data set's config
    data_root: Path | str | None = None,
    threshold: float = 0.9,
    size: int = 32,
    limit: int = 20,
) -> "list[Duplicates]":
    """Test images (and those of their gallery) of which a training image is nearly a copy, for each task of a data set.

    Images are compared by the cosine of small renderings, their mean subtracted: a test image counts when its most
    similar training image is above the threshold. Memory is bounded; the time is that of rendering all images and of
    all test times training products.

    Args:
        name: Name of the data set.
        data: Fields of its config.
        data_root: Folder of data sets; None: `$SUBNETBENCH_DATA`, or a folder in the user's cache.
        threshold: Cosine above which two images count as nearly the same, in 0 to 1.
        size: Side of the renderings in pixels, 4 to 256.
        limit: How many of the worst pairs are listed, for each task.

    Raises:
        UserError: There is no such data set, or a field cannot be used.
        DataError: Files are missing, incomplete or corrupt.

    Example:
        >>> from subnetbench.harness import api
        >>> found = api.find_duplicates("emoji")[0]
        >>> found.above, found.test
        (54, 800)
    """
    from subnetbench.harness.data.duplicates import duplicates_of  # late: imports torch

    dataset = _open_dataset(name, data, data_root)
    return [duplicates_of(dataset.load(task), threshold=threshold, size=size, limit=limit) for task in dataset.tasks]


def fetch_dataset(
    name: str,
    *,
    data: Mapping[str, Any] | None = None,  # open: fields of the data set's config
    data_root: Path | str | None = None,
) -> Path:
    """Download or build a data set that may be redistributed; the arguments are those of `check_dataset`.

    Returns:
        Where it lies.

    Raises:
        UserError: There is no such data set, a field cannot be used, or the data must be fetched by hand.
        DataError: The download failed, or is not what was published.

    Example:
        >>> from subnetbench.harness import api
        >>> api.fetch_dataset("emoji")
        Traceback (most recent call last):
        UserError: data.variant: cut comes with the program (got 'cut'); allowed: full
    """
    return _open_dataset(name, data, data_root).fetch()


def _open_dataset(name: str, data: Mapping[str, Any] | None, data_root: Path | str | None) -> "Dataset":
    found = get_dataset(name)
    return found(found.Config.parse(dict(data or {}), where="data"), data_folder(data_root))


def _about(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "")
