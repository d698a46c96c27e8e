"""SOP (Stanford Online Products): 120053 photographs of 22634 products; retrieval of unseen products.

The folder `Stanford_Online_Products` holds `Ebay_train.txt` and `Ebay_test.txt`, tables with the columns `image_id
class_id super_class_id path`. Own lists in that format may take their place, also one of queries and one of a gallery.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from subnetbench.datasets.parts.annotations import columns
from subnetbench.datasets.parts.retrieval import Parts, RetrievalConfig, RetrievalDataset, below, with_gallery
from subnetbench.harness.data import Split, protocols_of, register_dataset

OFFICIAL = ("Ebay_train.txt", "Ebay_test.txt", None)


@register_dataset("sop")
class Sop(RetrievalDataset):
    """11318 products train, 11316 others test; classes in the order of the lists."""

    licence = "none stated; research use (photographs from eBay)"
    citation = (
        "Song, Xiang, Jegelka, Savarese. Deep metric learning via lifted structured feature embedding. CVPR 2016."
    )
    source = "https://cvgl.stanford.edu/projects/lifted_struct"
    folder = "Stanford_Online_Products"
    counts = {"train classes": 11318, "train images": 59551, "test classes": 11316, "test images": 60502}
    metrics = (*(f"recall_at_{10**power}" for power in range(4)), "r_precision", "map_at_r", "map", "map_trapezoid")
    (protocol,) = protocols_of("sop", "retrieval")

    class Config(RetrievalConfig):
        train_list: Annotated[str, Field(min_length=1, description="file with the training images")] = "Ebay_train.txt"
        test_list: Annotated[str, Field(min_length=1, description="file with the test images, or the queries")] = (
            "Ebay_test.txt"
        )
        gallery_list: Annotated[
            str | None, Field(min_length=1, description="file with the gallery; null: queries search in themselves")
        ] = None

    config: Config

    def expected(self) -> Mapping[str, int]:
        config = self.config
        return self.counts if (config.train_list, config.test_list, config.gallery_list) == OFFICIAL else {}

    def splits(self, base: Path) -> Parts:
        config = self.config
        train, test = self._listed(base, "train", config.train_list), self._listed(base, "test", config.test_list)
        if config.gallery_list is not None:
            test = with_gallery(test, self._listed(base, "gallery", config.gallery_list))
        return Parts(train, test)

    def _listed(self, base: Path, name: str, file: str) -> Split:
        rows = columns(below(base, file), ("image_id", "class_id", "super_class_id", "path"), header=1)
        return self.image_split(name, [below(base, path) for *_, path in rows], [number for _, number, *_ in rows])
