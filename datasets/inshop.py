"""In-shop Clothes Retrieval (DeepFashion): 52712 photographs of 7982 clothes; queries search in a gallery.

The folder `inshop` (or `data.path`) holds the partition file, itself or in `Eval`, and the images that it names, itself
or in `Img`. Any item id will do: training items are numbered here, so a file with renumbered ids gives the same.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from subnetbench.datasets.parts.annotations import columns
from subnetbench.datasets.parts.retrieval import Parts, RetrievalConfig, RetrievalDataset, below, with_gallery
from subnetbench.harness.data import DataError, protocols_of, register_dataset

PARTS = ("train", "query", "gallery")


@register_dataset("inshop")
class Inshop(RetrievalDataset):
    """3997 clothes train; 14218 queries of 3985 others search among 12612 images."""

    licence = "DeepFashion terms: non-commercial research, on request"
    citation = "Liu, Luo, Qiu, Wang, Tang. DeepFashion: powering robust clothes recognition and retrieval. CVPR 2016."
    source = "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html"
    folder = "inshop"
    counts = {
        "train classes": 3997,
        "train images": 25882,
        "test classes": 3985,
        "queries": 14218,
        "gallery images": 12612,
    }
    metrics = (*(f"recall_at_{k}" for k in (1, 2, 4, 8, 10, 20, 30)), "map_at_r", "map")
    (protocol,) = protocols_of("inshop", "retrieval")

    class Config(RetrievalConfig):
        partition: Annotated[
            str, Field(min_length=1, description="the file that says what is training, query and gallery")
        ] = "list_eval_partition.txt"

    config: Config

    def splits(self, base: Path) -> Parts:
        file = below(base, self.config.partition)
        if not file.exists():
            file = base / "Eval" / self.config.partition
        rows = columns(file, ("image_name", "item_id", "evaluation_status"), header=2)
        unknown = {part for _, _, part in rows} - set(PARTS)
        if unknown:
            raise DataError(f"{file} has a part {unknown.pop()!r}, not {', '.join(PARTS)}")
        images = base / "Img" if (base / "Img").is_dir() else base
        train, query, gallery = (
            self.image_split(
                part,
                [below(images, name) for name, _, given in rows if given == part],
                [item for _, item, given in rows if given == part],
            )
            for part in PARTS
        )
        return Parts(train, with_gallery(query, gallery))
