"""ROxford5k: 70 queries among 4993 photographs of Oxford, in three difficulties; retrieval, test only.

The folder `roxford5k` holds `jpg` and `gnd_roxford5k.pkl` (or the latter lies beside it).
"""

from subnetbench.datasets.parts.revisited import QUERIES, RevisitedConfig, RevisitedDataset
from subnetbench.harness.data import register_dataset


@register_dataset("roxford5k")
class ROxford5k(RevisitedDataset):
    """For networks that were trained on other data: `subnetbench evaluate RUN --dataset roxford5k`."""

    source = "http://cmp.felk.cvut.cz/revisitop (ground truth), https://www.robots.ox.ac.uk/~vgg/data/oxbuildings"
    folder = "roxford5k"
    counts = {"queries": QUERIES, "gallery images": 4993}

    class Config(RevisitedConfig):
        pass
