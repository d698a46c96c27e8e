"""Names of the protocols by which the data sets of this package are split.

A data set takes its names from here, and whoever reads records knows them without loading a data set, which needs torch.
Data sets of plug-ins name theirs themselves.
"""

import re
from collections.abc import Mapping
from functools import cache

OFFICIAL = "official test, validation from training"
_VALIDATION_AS_TEST = "official validation as test, validation from training"
_TO_ALL = "each image a query to all others"
_KARPATHY = "Karpathy's splits, every caption"
_REVISITED = "70 queries in Easy (easy_), Medium (no prefix) and Hard (hard_)"

SEEN_CLASSES = f"; seen classes, {_TO_ALL}"
NOT_HELD_OUT = "; validation not held out"
OWN_IMAGE = "; own image left out of the ranking of {count} queries that are in the gallery"
NEAR_DUPLICATES = "; near-duplicates (cosine above {cosine:g} at {size} pixels) on one side"
EQUAL_CAPTIONS = "; equal captions are one query"
CAPTIONS_APART = "; equal captions stay apart"
IMAGES_OF = "; images of {size} pixels"
SCALES = "; mean over scales {scales}"
OTHER_GALLERY = "; gallery by another run"
_QUALIFIERS = (
    *(SEEN_CLASSES, NOT_HELD_OUT, OWN_IMAGE, NEAR_DUPLICATES, EQUAL_CAPTIONS, CAPTIONS_APART),
    *(IMAGES_OF, SCALES, OTHER_GALLERY),
)
"""What the config of a data set adds to a name, and then how a finished run was evaluated; in braces are numbers."""

PROTOCOLS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "aircraft": {"retrieval": (f"first 50 variants train, others test; {_TO_ALL}",)},
    "cars196": {"retrieval": (f"first 98 classes train, others test; {_TO_ALL}",)},
    "cifar10": {"classification": (OFFICIAL,)},
    "cifar100": {"classification": (OFFICIAL,), "retrieval": (OFFICIAL,)},
    "coco": {"text_image": ("val2017 as a whole, 2017 captions",)},
    "coco_karpathy": {"text_image": (_KARPATHY,)},
    "cub": {"retrieval": (f"first 100 classes train, others test; {_TO_ALL}",)},
    "digits": {"classification": ("fixed stratified test, validation from training",)},
    "emoji": {
        "classification": tuple(
            f"{labels} of unseen concepts" for labels in ("groups", "subgroups", "vendors in drawings")
        ),
        "retrieval": (f"class-disjoint and concept-disjoint, {_TO_ALL}",),
        "text_image": ("unseen concepts, one caption to all drawings of its concept",),
    },
    "fashion_mnist": {"classification": (OFFICIAL,)},
    "flickr30k": {"text_image": ("the whole collection", "{size} drawn images")},
    "flickr30k_karpathy": {"text_image": (_KARPATHY,)},
    "flowers102": {"retrieval": (f"first 51 classes train, others test; {_TO_ALL}",)},
    "image_folder": {"classification": ("classes by folder",), "retrieval": (_TO_ALL,)},
    "image_text_file": {"text_image": ("splits of the file", "drawn test", "all images searched")},
    "imagenet": {"classification": (_VALIDATION_AS_TEST,), "retrieval": (_VALIDATION_AS_TEST,)},
    "inshop": {"retrieval": ("official queries and gallery, class-disjoint from training",)},
    "landmarks": {"retrieval": ("ground truth of images, landmarks partly seen in training",)},
    "mnist": {"classification": (OFFICIAL,)},
    "roxford5k": {"retrieval": (_REVISITED,)},
    "rparis6k": {"retrieval": (_REVISITED,)},
    "sop": {"retrieval": (f"class-disjoint lists; {_TO_ALL}, or to a gallery",)},
    "split_file": {"retrieval": ("own split file",)},
    "tiny_imagenet": {"classification": (_VALIDATION_AS_TEST,)},
    "veri776": {"retrieval": ("official queries and gallery; the query's vehicle in its own camera is ignored",)},
}
"""By data set and task; in braces are numbers."""


def protocols_of(dataset: str, task: str) -> tuple[str, ...]:
    """The protocols of a data set of this package for a task, without qualifiers; empty: not of this package.

    Args:
        dataset: Its name.
        task: One of `core.tasks.TASKS`.
    """
    return PROTOCOLS.get(dataset, {}).get(task, ())


def is_protocol(dataset: str, task: str, name: str) -> bool:
    """Whether a data set of this package may be split so; of any other data set, or task that it has not, true.

    >>> is_protocol("flickr30k", "text_image", "1000 drawn images"), is_protocol("digits", "classification", "mine")
    (True, False)
    """
    known = protocols_of(dataset, task)
    return not known or any(_pattern(each).fullmatch(name) for each in known)


@cache
def _pattern(protocol: str) -> re.Pattern[str]:
    qualifiers = "".join(f"(?:{_with_numbers(each)})?" for each in _QUALIFIERS)
    return re.compile(_with_numbers(protocol) + qualifiers)


def _with_numbers(text: str) -> str:
    return r"[0-9.]+(?:, [0-9.]+)*".join(re.escape(part) for part in re.split(r"\{[^}]*\}", text))
