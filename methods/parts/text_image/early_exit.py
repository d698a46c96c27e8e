"""Early exit: the first layers of a ViT as the cheap level of a cascade, the other layers as the expensive one.

The second level continues from the tokens that the first one left behind, so it costs only the remaining layers, and
its embedding is that of the whole ViT. The published code hands over the tokens in front of the first level's last
stage, so that its second level skips those layers; this is not reproduced.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from subnetbench.harness.method import Images, Preprocessing, UserError, digest_of
from subnetbench.methods.parts.text_image.cascade import Level
from subnetbench.methods.parts.text_image.encoders import ImageEncoder, TextEncoder
from subnetbench.methods.parts.vit.model import PlainViT


class EarlyExit(nn.Module):
    """The first `depth` layers of `vit` with an exit of its own: layer norm and linear layer on the class token.

    Maps images to embeddings in the space of `vit`, after `clip_student.distil_head` has trained `head` on
    `class_tokens` towards the embeddings of the whole ViT.
    """

    def __init__(self, vit: PlainViT, depth: int) -> None:
        super().__init__()
        shape = vit.shape
        if not 0 < depth < shape.layers:
            raise UserError(
                "must leave layers on both sides", field="depth", value=depth, allowed=f"1 to {shape.layers - 1}"
            )
        self.vit = vit
        self.depth = depth
        norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.head = nn.Sequential(norm, nn.Linear(shape.width, shape.embedding or shape.width))

    def extra_repr(self) -> str:
        return f"depth={self.depth}"

    def tokens(self, images: Tensor) -> Tensor:
        """Tokens (n, 1 + patches, width) behind layer `depth`: what the second level continues from."""
        tokens = self.vit.embed_patches(images)
        for layer in self.vit.stack[: self.depth]:
            tokens = layer(tokens)
        return tokens

    def class_tokens(self, images: Tensor) -> Tensor:
        """The head's inputs (n, width)."""
        return self.tokens(images)[:, 0]

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.head(self.class_tokens(images))
        return result

    def finish(self, tokens: Tensor) -> Tensor:
        """The embeddings of the whole ViT from its tokens behind layer `depth`."""
        for layer in self.vit.stack[self.depth :]:
            tokens = layer(tokens)
        return self.vit.project(tokens)


def early_exit_levels(
    name: str,
    network: EarlyExit,
    preprocessing: Preprocessing,
    text_encoder: TextEncoder,
    images: Images,
    scratch: Path,
    *,
    device: torch.device | str = "cpu",
) -> tuple[Level, Level]:
    """Two levels of a cascade over `images` that share the work of the first layers.

    The first one leaves its tokens in a file of images * (1 + patches) * width * 4 bytes under `scratch`, from where
    the second one continues; it is to be called for an image only after the first.
    """
    encoder = ImageEncoder(name, network, preprocessing, device=device)
    size = (len(images), 1 + network.vit.shape.patches, network.vit.shape.width)
    store = torch.from_file(str(scratch / f"{encoder.identity}.tokens"), shared=True, size=int(np.prod(size))).view(
        size
    )
    stored = torch.zeros(len(images), dtype=torch.bool)

    @torch.inference_mode()
    def first(indices: np.ndarray) -> Tensor:
        rows = torch.from_numpy(indices)
        tokens = network.tokens(preprocessing(images, indices, device))
        store[rows] = tokens.cpu()
        stored[rows] = True
        result: Tensor = network.head(tokens[:, 0])
        return result

    @torch.inference_mode()
    def second(indices: np.ndarray) -> Tensor:
        rows = torch.from_numpy(indices)
        if not stored[rows].all():
            raise UserError("the second level of an early exit cannot be the first of a cascade", field="levels")
        return network.finish(store[rows].to(device))

    whole = f"{name}.whole.{digest_of(encoder.identity)}"
    return (
        Level(encoder.identity, text_encoder.identity, first, text_encoder.embed),
        Level(whole, text_encoder.identity, second, text_encoder.embed),
    )
