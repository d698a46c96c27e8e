"""Image and text encoders as things of their own: what they compute, and an identity that determines it completely.

A cascade composes them, caches embeddings by image encoder, and encodes a text once for all levels that share a text
encoder. An identity is a digest of weights, architecture, preprocessing, dtype and prompt, so equal identities mean
equal embeddings.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.method import Images, Preprocessing, UserError, digest_of, weights_digest

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

PROMPT = "a photo of {}"
PUBLISHED_PROMPT = "a photo of{}"
"""The prompt of the published cascades, glued to the caption: "a photo of" + "fish" is read as `off`, `ish`."""


@dataclass(frozen=True)
class ClipPreprocessing(Preprocessing):
    """CLIP's own: shorter side to `size` by Pillow's bicubic filter, centre crop rounded down, CLIP's statistics.

    Pillow and torchvision differ by one grey level here and there, and torchvision rounds half a pixel of the crop to
    the even side.
    """

    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bicubic"

    def _fit(self, images: Tensor) -> Tensor:
        from PIL import Image

        if images.ndim == 4:
            return torch.stack([self._fit(image) for image in images])
        picture = Image.fromarray(images.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy())
        shorter, side = min(picture.size), round(self.size * self.resize_ratio)
        if shorter != side:
            width, height = (int(side * length / shorter) for length in picture.size)
            picture = picture.resize((width, height), Image.Resampling[self.interpolation.upper()])
        left, top = ((length - self.size) // 2 for length in picture.size)
        picture = picture.crop((left, top, left + self.size, top + self.size))
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(images.device)


class ImageEncoder:
    """A network from normalised images to embeddings, with the preprocessing it expects.

    `tower` maps (n, channels, size, size) to (n, d), each row from its own image alone; it is put into evaluation
    mode. An embedding then depends on its image, not on the batch around it, but for rounding.
    """

    def __init__(
        self,
        name: str,
        tower: nn.Module,
        preprocessing: Preprocessing,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.name = name
        self.tower = tower.eval().to(device, dtype)
        self.preprocessing = preprocessing
        self.dtype = dtype
        self.device = torch.device(device)

    @cached_property
    def identity(self) -> str:
        """The name with a digest of everything that an embedding depends on beside the image."""
        digest = digest_of(weights_digest(self.tower), repr(self.tower), repr(self.preprocessing), str(self.dtype))
        return f"{self.name}.{digest}"

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """Float32 embeddings (n, d), not normalised, of preprocessed images (n, channels, size, size)."""
        result: Tensor = self.tower(images.to(self.device, self.dtype)).float()
        return result

    def embed_images(self, images: Images, indices: np.ndarray) -> Tensor:
        """The same for the images at `indices` of a collection."""
        return self.embed(self.preprocessing(images, indices, self.device))


class TextEncoder:
    """A network from texts to embeddings in the space of an image encoder.

    `tokenise` gives the ids of each text with begin and end tokens, of any length; `tower` maps padded ids (n, length)
    to (n, d). Longer texts than `context` are cut, keeping the end token. Texts are padded to the longest of a batch,
    or always to `context` with `pad_fully`; a causal tower does not see the padding. `digest` stands for weights,
    architecture and vocabulary.
    """

    def __init__(
        self,
        name: str,
        tower: Callable[[Tensor], Tensor],
        tokenise: Callable[[Sequence[str]], Iterable[Sequence[int]]],
        *,
        context: int,
        pad_token: int,
        digest: str,
        template: str = PROMPT,
        pad_fully: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        fill_prompt(template, "")
        self.name = name
        self.tower = tower
        self.tokenise = tokenise
        self.context = context
        self.pad_token = pad_token
        self.digest = digest
        self.template = template
        self.pad_fully = pad_fully
        self.device = torch.device(device)

    @property
    def identity(self) -> str:
        """The name with a digest of everything that an embedding depends on beside the text."""
        return f"{self.name}.{digest_of(self.digest, self.template, self.context, self.pad_token)}"

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Float32 embeddings (n, d), not normalised, of the texts put into the prompt."""
        ids = [cut_to_context(ids, self.context) for ids in self.tokenise(self.prompts(texts))]
        return self.tower(pad(ids, self.pad_token, self.context if self.pad_fully else None).to(self.device)).float()

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return self.embed(texts)

    def prompts(self, texts: Sequence[str]) -> list[str]:
        """The texts put into the prompt."""
        return [fill_prompt(self.template, text) for text in texts]


def fill_prompt(template: str, text: str) -> str:
    """`text` in place of the one `{}` of `template`."""
    if template.count("{}") != 1:
        raise UserError("needs one {} for the caption", field="template", value=template)
    return template.replace("{}", text)


def cut_to_context(ids: Sequence[int], context: int) -> list[int]:
    """At most `context` ids; the end token, the last one, is kept."""
    return [*ids] if len(ids) <= context else [*ids[: context - 1], ids[-1]]


def pad(sequences: Sequence[Sequence[int]], token: int, length: int | None = None) -> Tensor:
    """Token ids int64 (n, length), filled up with `token` at the end; default: the length of the longest."""
    length = length or max(map(len, sequences))
    return torch.tensor([[*ids, *[token] * (length - len(ids))] for ids in sequences], dtype=torch.int64)
