"""The data sets that exist, by name."""

from typing import TYPE_CHECKING

from subnetbench.harness.core.registry import Registry

if TYPE_CHECKING:
    from subnetbench.harness.data.dataset import Dataset

DATASETS: "Registry[Dataset]" = Registry("dataset", "datasets")

register_dataset = DATASETS.register
get_dataset = DATASETS.get
