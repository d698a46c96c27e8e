"""Search of images with texts and of texts with images, from embeddings in one space."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from subnetbench.harness.data.splits import CaptionProtocol
from subnetbench.harness.evaluation.relevance import Relevance
from subnetbench.harness.evaluation.retrieval import PerQuery, average, retrieval_per_query

KS = (1, 5, 10)
FIRST_CAPTION = "first_caption_"

Captions = Sequence[Sequence[str]]
TextEncoder = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class TextGallery:
    """The texts that take part in a search.

    `texts` are queries and items of the text gallery at once; `texts_of_image[i]` are the indices of those that are
    right for image i, int64, in order. An image without any is no query.
    """

    texts: tuple[str, ...]
    texts_of_image: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, captions: Captions, protocol: CaptionProtocol) -> "TextGallery":
        """The texts of `captions[i]`, the captions of image i.

        Protocol `all_captions`, the usual one: every caption is a text of its own, right for its image alone. Protocol
        `merged_captions`: equal captions are one text, right for all images that have it.
        """
        if protocol == "all_captions":
            ends = np.cumsum([0, *map(len, captions)])
            own = tuple(np.arange(start, end) for start, end in pairwise(ends.tolist()))
            return cls(tuple(text for texts in captions for text in texts), own)
        texts = sorted({text for own in captions for text in own})
        index = {text: i for i, text in enumerate(texts)}
        return cls(tuple(texts), tuple(np.array(sorted({index[t] for t in own}), dtype=np.int64) for own in captions))

    def images_of_text(self) -> list[list[int]]:
        """The indices of the images that each text is right for."""
        found: list[list[int]] = [[] for _ in self.texts]
        for image, own in enumerate(self.texts_of_image):
            for text in own:
                found[text].append(image)
        return found


def galleries(captions: Captions, protocol: CaptionProtocol) -> dict[str, TextGallery]:
    """The searches that a split is scored by, by the prefix of their metrics.

    All captions, and where images have several also the first caption of each image alone (`first_caption_`).
    """
    found = {"": TextGallery.of(captions, protocol)}
    if any(len(own) > 1 for own in captions):
        found[FIRST_CAPTION] = TextGallery.of([own[:1] for own in captions], protocol)
    return found


def text_image_metrics(
    images: Tensor,
    captions: Captions,
    encoder: TextEncoder,
    *,
    protocol: CaptionProtocol = "all_captions",
    ks: Sequence[int] = KS,
) -> dict[str, float]:
    """The metrics of `text_image_outcomes`, without the hits of single queries."""
    return text_image_outcomes(images, captions, encoder, protocol=protocol, ks=ks)[0]


def text_image_outcomes(
    images: Tensor,
    captions: Captions,
    encoder: TextEncoder,
    *,
    protocol: CaptionProtocol = "all_captions",
    ks: Sequence[int] = KS,
) -> tuple[dict[str, float], PerQuery]:
    """Recall at each k in both directions: a query finds something when one of its right answers is among the first k.

    Args:
        images: Embeddings (n, d); all of them are in the image gallery.
        captions: The captions of each image.
        encoder: Embeddings (t, d) of texts, in the space of `images`.
        protocol: How equal captions count, see `TextGallery.of`.
        ks: Those that exceed the smaller of the two galleries are left out.

    Returns:
        `text_to_image_recall_at_k` and `image_to_text_recall_at_k`, with their prefixes (see `galleries`); and by the same
        names whether each query found something, float64 (texts,) or (images,), NaN for an image without captions.
    """
    # Equal texts are embedded once, whatever the protocol.
    unique = sorted({text for own in captions for text in own})
    rows = encoder(unique).to(images.device)
    results: dict[str, float] = {}
    by_query: PerQuery = {}
    for prefix, gallery in galleries(captions, protocol).items():
        chosen = torch.tensor(np.searchsorted(unique, gallery.texts), device=images.device)
        for direction, hits in _both_ways(images, rows[chosen], gallery, ks).items():
            means = average(hits)
            results |= {f"{prefix}{direction}_{name}": means[name] for name in hits}
            by_query |= {f"{prefix}{direction}_{name}": found for name, found in hits.items()}
    return results, by_query


def _both_ways(images: Tensor, texts: Tensor, gallery: TextGallery, ks: Sequence[int]) -> dict[str, PerQuery]:
    names = [f"recall_at_{k}" for k in ks if k <= min(len(texts), len(images))]
    if not names:
        return {}
    to_image = Relevance.from_lists(gallery.images_of_text(), None, len(images))
    to_text = Relevance.from_lists(gallery.texts_of_image, None, len(texts))
    return {
        "text_to_image": retrieval_per_query(texts, images, to_image, names),
        "image_to_text": retrieval_per_query(images, texts, to_text, names),
    }
