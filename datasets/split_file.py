"""Split file: your own images by a file that says which image is of which class in which split; retrieval.

`file` is JSON or YAML, a mapping of `train`, `test` (or `query` and `gallery`) and perhaps `val` to classes: either a
list of classes, each a list of image paths, or a mapping from the name of a class to its paths. Or it is text with the
three columns `path class split`. Paths are relative to `path`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from subnetbench.datasets.parts.annotations import columns, json_or_yaml
from subnetbench.datasets.parts.retrieval import Parts, RetrievalConfig, RetrievalDataset, below, with_gallery
from subnetbench.harness.data import DataError, Split, protocols_of, register_dataset

# Paths and class names of each split.
Listing = dict[str, tuple[list[str], list[str]]]
OTHER_NAMES = {"validation": "val"}
SPLITS = ("train", "val", "test", "query", "gallery")


@register_dataset("split_file")
class SplitFile(RetrievalDataset):
    """Images read when they are needed; classes in the order of the file.

    Without `val`, the last training classes are set aside. With it, `validation_classes=0` trains on both.
    """

    licence = "that of your images"
    citation = "none"
    source = "your own files"
    folder = "own_images"
    (protocol,) = protocols_of("split_file", "retrieval")
    upright = True

    class Config(RetrievalConfig):
        file: Annotated[str, Field(min_length=1, description="the split file, below `path`; .json, .yaml or text")] = (
            "splits.json"
        )

    config: Config

    def splits(self, base: Path) -> Parts:
        file = below(base, self.config.file)
        listing = _structured(file) if file.suffix in (".json", ".yaml", ".yml") else _text(file)

        def split(name: str) -> Split:
            if name not in listing:
                raise DataError(f"{file} has no split {name!r}, only {', '.join(listing) or 'none'}")
            paths, classes = listing[name]
            return self.image_split(name, [below(base, path) for path in paths], classes)

        train = split("train")
        test = split("test") if "query" not in listing else with_gallery(split("query"), split("gallery"))
        return Parts(train, test, split("val") if "val" in listing else None)


def _structured(file: Path) -> Listing:
    content = json_or_yaml(file)
    if not isinstance(content, Mapping):
        raise DataError(f"{file} should be a mapping of splits")
    listing: Listing = {}
    for split, classes in content.items():
        named = _named(classes)
        if named is None:
            raise DataError(f"{file}: {split!r} should hold classes, each a list of paths")
        paths = [path for members in named.values() for path in members]
        listing[_known(split, file)] = paths, [name for name, members in named.items() for _ in members]
    return listing


def _named(classes: Any) -> dict[str, list[str]] | None:
    """The paths of each class by its name, which is its number where it has none; None if it is something else."""
    if isinstance(classes, list):
        classes = dict(enumerate(classes))
    if not isinstance(classes, Mapping) or not classes:
        return None
    for members in classes.values():
        if not isinstance(members, list) or not all(isinstance(path, str) for path in members):
            return None
    return {str(name): members for name, members in classes.items()}


def _text(file: Path) -> Listing:
    listing: Listing = {}
    for path, name, split in columns(file, ("path", "class", "split")):
        paths, classes = listing.setdefault(_known(split, file), ([], []))
        paths.append(path)
        classes.append(name)
    return listing


def _known(split: Any, file: Path) -> str:
    name = OTHER_NAMES.get(split, split)
    if name not in SPLITS:
        raise DataError(f"{file} has a split {split!r}; there are {', '.join(SPLITS)}")
    return str(name)
