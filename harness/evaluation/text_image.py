"""Search of images with texts and of texts with images, from embeddings in one space."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch

from subnetbench.harness.errors import UserError
from subnetbench.harness.evaluation.relevance import Relevance
from subnetbench.harness.evaluation.retrieval import retrieval_metrics
from subnetbench.harness.evaluation.search import Similarity

Protocol = Literal["all_captions", "first_caption"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


def text_image_metrics(
    text: torch.Tensor,
    image: torch.Tensor,
    image_of_text: np.ndarray,
    ks: Sequence[int] = (1, 5, 10),
    *,
    protocol: Protocol = "all_captions",
    similarity: Similarity = "cosine",
) -> dict[str, float]:
    """`text_to_image_recall_at_k` and `image_to_text_recall_at_k` for every k.

    `text` (t, d) and `image` (n, d) are embeddings on one device, `image_of_text` (t,) the index of each caption's
    image. Protocol `all_captions`, the usual one: every caption is a query and an item of the text gallery, and an
    image finds a text when it finds any of its captions. Protocol `first_caption`: only the first caption of each
    image takes part, in the order of `text`; names then begin with `first_caption_`. Every image is in the gallery
    in both. Images without captions are no queries.
    """
    if protocol not in PROTOCOLS:
        raise UserError("no such protocol", field="protocol", value=protocol, allowed=", ".join(PROTOCOLS))
    image_of_text = np.asarray(image_of_text)
    prefix = ""
    if protocol == "first_caption":
        prefix = "first_caption_"
        image_of_text, first = np.unique(image_of_text, return_index=True)
        text = text[torch.from_numpy(first).to(text.device)]
    images = np.arange(len(image))
    names = [f"recall_at_{k}" for k in ks]
    results: dict[str, float] = {}
    for direction, query, gallery, relevance in (
        ("text_to_image", text, image, Relevance.from_labels(image_of_text, images)),
        ("image_to_text", image, text, Relevance.from_labels(images, image_of_text)),
    ):
        found = retrieval_metrics(query, gallery, relevance, names, similarity=similarity)
        results |= {f"{prefix}{direction}_{name}": found[name] for name in names}
    return results
