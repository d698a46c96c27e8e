"""What a data set is: named data with tasks, splits, a licence and a citation."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from subnetbench.harness.core.config import DatasetConfig
from subnetbench.harness.core.errors import DataError, UserError
from subnetbench.harness.core.tasks import Task
from subnetbench.harness.data.splits import TaskData


class Dataset(ABC):
    """Named data with tasks, splits, a digest, a licence and a citation.

    A data set is one file in `datasets/` with one subclass, registered by `register_dataset`. It reads from
    `root` (see `--data-root`) and never writes there except through `fetch`.
    """

    name: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]]
    licence: ClassVar[str]
    citation: ClassVar[str]
    source: ClassVar[str]

    class Config(DatasetConfig):
        pass

    def __init__(self, config: DatasetConfig, root: Path) -> None:
        self.config = config
        self.root = root

    @abstractmethod
    def load(self, task: Task) -> TaskData:
        """The data for `task`. Raises `DataError` saying what is missing, where to get it, where to put it."""

    def fetch(self) -> Path:
        """Get or build what `config` asks for under `root` and return where it lies.

        Most data sets cannot do it themselves: raises `UserError` with their source.
        """
        raise UserError(f"{self.name} cannot be fetched by the program; it comes from {self.source}")

    def problems(self) -> list[str]:
        """What is wrong with the files under `root`, one line each; empty when `load` will work."""
        try:
            for task in self.tasks:
                self.load(task)
        except DataError as error:
            return [str(error)]
        return []
