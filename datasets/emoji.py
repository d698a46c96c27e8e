"""Emoji as drawn by four to eight vendors: classification, retrieval and captions; drawings, not photographs.

A concept (one emoji of the Unicode CLDR) is a class, and each vendor's independent drawing of it an instance. The
variant `cut` (400 concepts, 2000 images, 32 pixels) comes with the program. The variant `full` (1582 concepts,
9614 images, any size) is built from published packages on the user's machine by `fetch`, because part of its art
is licensed share-alike.

No concept is in two splits, and man, woman and person doing the same thing are one concept in this respect. So
classification and text-image retrieval are measured on unseen concepts, retrieval on unseen classes.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from subnetbench.datasets.parts.emoji.archive import SPLITS, EmojiArchive
from subnetbench.datasets.parts.emoji.build import build_full
from subnetbench.datasets.parts.emoji.sources import CUT_SIZE, CUT_VENDORS, VENDORS
from subnetbench.datasets.parts.splits import findable, limit_training, renumbered, task_data
from subnetbench.datasets.parts.statistics import channel_statistics
from subnetbench.harness.data import (
    NEAR_DUPLICATES,
    DataError,
    Dataset,
    DatasetConfig,
    OpenFields,
    Split,
    Task,
    TaskData,
    TensorImages,
    UserError,
    near_pairs,
    operating_point,
    protocols_of,
    register_dataset,
)

NEAR = 0.9
"""Cosine of renderings above which two drawings count as nearly the same."""

CUT = Path(__file__).parent / "parts" / "emoji_cut.npz"


@register_dataset("emoji")
class Emoji(Dataset):
    """Emoji by several vendors, split by concept."""

    tasks = ("classification", "retrieval", "text_image")
    licence = "Apache-2.0, MIT and CC-BY-4.0 by vendor (see NOTICE); `full` also holds CC-BY-SA-4.0"
    citation = "Drawings: Google Noto, Twemoji, Microsoft Fluent, EmojiOne, OpenMoji, Mozilla. Names: Unicode CLDR."
    source = "npm packages @iconify-json/* and emojibase-data, pinned in datasets/parts/emoji/sources.py"

    class Config(DatasetConfig):
        variant: Annotated[
            Literal["cut", "full"], Field(description="cut: comes with the program; full: built by `fetch`")
        ] = "cut"
        size: Annotated[int, Field(ge=8, le=256, description="pixels; `cut` has only 32"), operating_point] = CUT_SIZE
        vendors: Annotated[
            tuple[str, ...], Field(description="only drawings by these vendors; none named: by all")
        ] = ()
        labels: Annotated[
            Literal["groups", "subgroups", "vendors"],
            Field(description="classes of the task classification; vendors: who drew it"),
        ] = "groups"

        split: Annotated[
            Literal["concepts", "near_duplicates"],
            Field(description="near_duplicates: concepts with drawings that are nearly the same stay on one side"),
        ] = "concepts"

        @model_serializer(mode="wrap")
        def _without_default_split(self, serialize: SerializerFunctionWrapHandler) -> OpenFields:
            """Left out where it is the default: ids of runs are those of versions that did not know the field."""
            plain: OpenFields = serialize(self)
            if plain.get("split") == "concepts":
                del plain["split"]
            return plain

        @model_validator(mode="after")
        def _known(self) -> Self:
            if self.variant == "cut" and self.size != CUT_SIZE:
                raise ValueError(f"size: the variant cut has {CUT_SIZE} pixels, not {self.size}; use the variant full")
            there = CUT_VENDORS if self.variant == "cut" else tuple(VENDORS)
            for vendor in self.vendors:
                if vendor not in there:
                    raise ValueError(
                        f"vendors: there is no {vendor!r} in the variant {self.variant}, only {', '.join(there)}"
                    )
            return self

    config: Config

    def fetch(self) -> Path:
        """Build the full set at `config.size` pixels under `root` and return its file.

        Takes about a minute and 20 MB of downloads. The packages are fetched with the npm client into
        `root/emoji/packages`; those that are already there are used as they are.

        Raises:
            DataError: When one cannot be had or is not the published one.
        """
        if self.config.variant == "cut":
            raise UserError("cut comes with the program", field="data.variant", value="cut", allowed="full")
        archive = build_full(self.root / "emoji" / "packages", self.config.size)
        archive.save(self._full_path)
        return self._full_path

    @property
    def _full_path(self) -> Path:
        return self.root / "emoji" / f"full-{self.config.size}.npz"

    def load(self, task: Task) -> TaskData:
        if task == "retrieval" and len(set(self.config.vendors)) == 1:
            raise UserError("retrieval needs drawings by two vendors", field="data.vendors", value=self.config.vendors)
        archive = self._archive()
        chosen = np.isin(archive.vendors[archive.vendor], self.config.vendors or archive.vendors)
        archive = self._regrouped(archive)
        split_of = archive.split[archive.concept]
        train, validation, test = (
            self._split(task, archive, name, np.flatnonzero(chosen & (split_of == number)))
            for number, name in enumerate(SPLITS)
        )
        mean, std = channel_statistics(train.images)
        train = limit_training(train, self.config)
        named = protocols_of(self.name, task)
        (protocol,) = (name for name in named if task != "classification" or name.startswith(self.config.labels))
        if self.config.split == "near_duplicates":
            protocol += NEAR_DUPLICATES.format(cosine=NEAR, size=CUT_SIZE)
        splits = train, validation, test
        return task_data(self, task, splits, protocol=protocol, mean=mean, std=std, image_size=archive.size)

    def _regrouped(self, archive: EmojiArchive) -> EmojiArchive:
        """The archive with concepts that near-duplicates link, directly or through others, in one split.

        A group goes where most of its concepts are, of two such splits to the earlier one of training, validation, test.
        """
        if self.config.split == "concepts":
            return archive
        images = TensorImages(torch.from_numpy(archive.images))
        linked = archive.concept[near_pairs(images, NEAR, CUT_SIZE)]
        count = len(archive.split)
        graph = coo_array((np.ones(len(linked)), (linked[:, 0], linked[:, 1])), shape=(count, count))
        group = connected_components(graph, directed=False)[1]
        votes = np.zeros((group.max() + 1, len(SPLITS)), np.int64)
        np.add.at(votes, (group, archive.split), 1)
        return replace(archive, split=votes.argmax(1)[group].astype(np.int32))

    def _archive(self) -> EmojiArchive:
        if self.config.variant == "cut":
            return EmojiArchive.load(CUT)
        path = self._full_path
        try:
            archive = EmojiArchive.load(path)
        except FileNotFoundError:
            raise DataError(
                f"the full emoji set is not at {path}: build it by `subnetbench datasets fetch emoji "
                f"--data variant=full --data size={self.config.size}` (about a minute; needs npm and resvg-py)"
            ) from None
        if archive.size != self.config.size:
            raise DataError(f"{path} has images of {archive.size} pixels; delete it and fetch again")
        return archive

    def _split(self, task: Task, archive: EmojiArchive, name: str, rows: np.ndarray) -> Split:
        if task == "classification":
            return self._classification_split(archive, name, rows)
        captions = tuple((str(archive.captions[concept]),) for concept in archive.concept[rows])
        split = Split(
            name=name,
            images=TensorImages(torch.from_numpy(archive.images[rows])),
            labels=archive.concept[rows].astype(np.int64),
            classes=tuple(map(str, archive.labels)),
            captions=captions if task == "text_image" else None,
            caption_protocol="merged_captions",
        )
        return findable(split) if task == "retrieval" else renumbered(split)

    def _classification_split(self, archive: EmojiArchive, name: str, rows: np.ndarray) -> Split:
        if self.config.labels == "vendors":
            drew, labels = np.unique(archive.vendor[rows], return_inverse=True)
            return Split(
                name=name,
                images=TensorImages(torch.from_numpy(archive.images[rows])),
                labels=labels.astype(np.int64),
                classes=tuple(map(str, archive.vendors[drew])),
            )
        by_group = self.config.labels == "groups"
        table, names = (archive.group, archive.groups) if by_group else (archive.subgroup, archive.subgroups)
        # A few small subgroups have no training concept; what cannot be learned is not asked for.
        learned = np.unique(table[archive.split == SPLITS.index("train")])
        rows = rows[np.isin(table[archive.concept[rows]], learned)]
        return Split(
            name=name,
            images=TensorImages(torch.from_numpy(archive.images[rows])),
            labels=np.searchsorted(learned, table[archive.concept[rows]]).astype(np.int64),
            classes=tuple(map(str, names[learned])),
            clusters=archive.concept[rows].astype(np.int64),  # several vendors draw the same concept
        )
