"""Pairs of image and caption as the published readers list them."""

import re

from subnetbench.datasets.parts.captions import CaptionedFiles
from subnetbench.harness.data import UserError

_LAYOUT = re.compile(r"image-caption\[(-?\d)\]")


def published_pairs(
    captioned: CaptionedFiles, layout: str = "image-caption[0]", n_samples: int | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Files and captions, pair by pair, as the published readers list them; at most `n_samples` pairs.

    `image-caption[i]` is one pair an image with its i-th caption (-1: the last). `caption` is one pair a caption with
    the image repeated, of which only one copy counts as found: its scores depend on how ties are broken. Use
    `queries(..., "all_captions")` instead.
    """
    if n_samples is not None and n_samples < 1:
        raise UserError("must be at least 1", field="n_samples", value=n_samples)
    match = _LAYOUT.fullmatch(layout)
    if match is not None:
        which = int(match[1])
        fewest = min(map(len, captioned.captions))
        if not -fewest <= which < fewest:
            raise UserError(
                "some image has fewer captions", field="layout", value=layout, allowed=f"{-fewest} to {fewest - 1}"
            )
        pairs = [(file, texts[which]) for file, texts in zip(captioned.files, captioned.captions, strict=True)]
    elif layout == "caption":
        pairs = [(captioned.files[image], captioned.captions[image][number]) for image, number in captioned.order]
    else:
        raise UserError("no such layout", field="layout", value=layout, allowed="caption, image-caption[i]")
    files, texts = zip(*pairs[:n_samples], strict=True)
    return files, texts
