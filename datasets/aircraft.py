"""FGVC-Aircraft: 10000 photographs of 100 variants of aircraft; retrieval of unseen variants.

The folder `fgvc-aircraft-2013b` is the published one. The images of the official training, validation and test lists
are put together and split by variant, in the order of `variants.txt`.
"""

from pathlib import Path

from subnetbench.datasets.parts.annotations import columns, text_lines
from subnetbench.datasets.parts.download import Download
from subnetbench.datasets.parts.retrieval import Parts, RetrievalConfig, RetrievalDataset, below
from subnetbench.harness.data import DataError, protocols_of, register_dataset


@register_dataset("aircraft")
class Aircraft(RetrievalDataset):
    """The first 50 variants train, the last 50 test. Papers have made retrieval splits of their own from this set."""

    licence = "non-commercial research; the photographers keep their rights"
    citation = (
        "Maji, Kannala, Rahtu, Blaschko, Vedaldi. Fine-grained visual classification of aircraft. arXiv:1306.5151."
    )
    source = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft"
    folder = "fgvc-aircraft-2013b"
    counts = {"train classes": 50, "train images": 5000, "test classes": 50, "test images": 5000}
    (protocol,) = protocols_of("aircraft", "retrieval")
    downloads = (
        Download(
            "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            "e4e323d410e29f0370c81eabdcbb0e2b813acea1de22891b70b58ff41bfc9834",
            holds=folder,
        ),
    )

    class Config(RetrievalConfig):
        pass

    def splits(self, base: Path) -> Parts:
        data = base / "data"
        variants = [line.strip() for line in text_lines(data / "variants.txt")]
        rows = [
            row
            for part in ("trainval", "test")
            for row in columns(data / f"images_variant_{part}.txt", ("image", "variant"), separator=" ")
        ]
        unknown = {variant for _, variant in rows} - set(variants)
        if unknown:
            raise DataError(f"variants.txt lacks {unknown.pop()!r}")
        paths = [below(data / "images", f"{image}.jpg") for image, _ in rows]
        whole = self.image_split("whole", paths, [variant for _, variant in rows], variants)
        return self.halves(whole, 50)
