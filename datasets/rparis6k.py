"""RParis6k: 70 queries among 6322 photographs of Paris, in three difficulties; retrieval, test only.

The folder `rparis6k` holds `jpg` and `gnd_rparis6k.pkl` (or the latter lies beside it).
"""

from subnetbench.datasets.parts.revisited import QUERIES, RevisitedConfig, RevisitedDataset
from subnetbench.harness.data import register_dataset


@register_dataset("rparis6k")
class RParis6k(RevisitedDataset):
    """For networks that were trained on other data: `subnetbench evaluate RUN --dataset rparis6k`."""

    source = "http://cmp.felk.cvut.cz/revisitop (ground truth), https://www.robots.ox.ac.uk/~vgg/data/parisbuildings"
    folder = "rparis6k"
    counts = {"queries": QUERIES, "gallery images": 6322}

    class Config(RevisitedConfig):
        pass
