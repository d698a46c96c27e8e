"""A plain vision transformer whose layers may differ in heads and neurons.

Token masking, head and neuron pruning, compaction and early exit all need the same few things from a ViT: patches
that can be left out before they are embedded, one linear layer behind the heads and one behind the neurons, and
layers of unequal size. Libraries fuse or hide some of these, so `vit_conversion` copies their towers into this one.
"""

import warnings
from collections.abc import Callable
from typing import Annotated, Literal, Self, cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from subnetbench.harness.method import Config

Size = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the activation of OpenAI's CLIP models."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "quick_gelu": QuickGELU,
    "relu": nn.ReLU,
}


class ViTShape(Config):
    """Everything about a plain ViT that its weights do not determine; with a state dict it is the whole model.

    `heads[l]` and `neurons[l]` are the attention heads and MLP neurons of layer l, possibly none.
    """

    image_size: Size
    patch_size: Size
    channels: Size = 3
    width: Size
    head_width: Size
    heads: tuple[Count, ...]
    neurons: tuple[Count, ...]
    embedding: Annotated[int, Field(ge=0, description="width of the output; 0: no projection")] = 0
    projection_bias: bool = False
    activation: Literal["gelu", "gelu_tanh", "quick_gelu", "relu"] = "gelu"
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5
    norm_before: Annotated[bool, Field(description="a layer norm in front of the first layer, as in CLIP")] = True
    patch_bias: bool = False

    @property
    def patches(self) -> int:
        """Number of patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.heads)

    @property
    def uniform(self) -> bool:
        """Whether all layers have the same numbers of heads and of neurons."""
        return len(set(self.heads)) == 1 and len(set(self.neurons)) == 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.heads) != len(self.neurons) or not self.heads:
            raise ValueError(f"heads of {len(self.heads)} layers but neurons of {len(self.neurons)}")
        if self.image_size % self.patch_size:
            raise ValueError(f"patches of {self.patch_size} do not tile an image of {self.image_size}")
        return self


def _linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear layer that may have no inputs or no outputs, which torch allows but warns about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return nn.Linear(inputs, outputs, bias=bias)


def _bias_alone(output: nn.Linear, tokens: Tensor) -> Tensor:
    """What a linear layer without inputs gives for every token.

    Products of empty matrices have no number of operations in some releases of torch, and cannot be exported.
    """
    return output.bias.to(tokens.dtype).expand_as(tokens)


class Attention(nn.Module):
    """Multi-head self-attention; `output` is the only layer behind the heads' outputs."""

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.query_key_value = _linear(width, 3 * heads * head_width)
        self.output = _linear(heads * head_width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.heads == 0:
            return _bias_alone(self.output, tokens)
        result: Tensor = self.output(self.mix(tokens))
        return result

    def mix(self, tokens: Tensor) -> Tensor:
        """The heads' outputs side by side, (n, tokens, heads * head_width)."""
        batch, length, _ = tokens.shape
        if self.heads == 0:  # a pruned layer may keep none; some releases of torch crash on empty attention
            return tokens.new_zeros(batch, length, 0)
        stacked = self.query_key_value(tokens).view(batch, length, 3, self.heads, self.head_width)
        query, key, value = stacked.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return mixed.transpose(1, 2).reshape(batch, length, self.heads * self.head_width)


class FeedForward(nn.Module):
    """Two linear layers; `output` is the only layer behind the neurons' activations."""

    def __init__(self, width: int, neurons: int, activation: str) -> None:
        super().__init__()
        self.neurons = neurons
        self.hidden = _linear(width, neurons)
        self.activation = ACTIVATIONS[activation]()
        self.output = _linear(neurons, width)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.neurons == 0:
            return _bias_alone(self.output, tokens)
        result: Tensor = self.output(self.activate(tokens))
        return result

    def activate(self, tokens: Tensor) -> Tensor:
        """The neurons' activations, (n, tokens, neurons)."""
        result: Tensor = self.activation(self.hidden(tokens))
        return result


class Layer(nn.Module):
    """A pre-norm transformer layer: tokens + attention, then + feed-forward."""

    def __init__(self, shape: ViTShape, index: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.attention = Attention(shape.width, shape.heads[index], shape.head_width)
        self.feed_forward_norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.feed_forward = FeedForward(shape.width, shape.neurons[index], shape.activation)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        result: Tensor = tokens + self.feed_forward(self.feed_forward_norm(tokens))
        return result


class PlainViT(nn.Module):
    """Images (n, channels, size, size) to embeddings (n, embedding), read from the class token.

    `embed_patches`, `stack` and `project` are the three parts of `forward`, for callers that leave out patches,
    stop early or continue from stored tokens.
    """

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        self.shape = shape
        values = shape.channels * shape.patch_size**2
        self.patch = nn.Linear(values, shape.width, bias=shape.patch_bias)
        self.class_token = nn.Parameter(torch.randn(shape.width) * shape.width**-0.5)
        self.positions = nn.Parameter(torch.randn(1 + shape.patches, shape.width) * 0.02)
        self.norm_before = nn.LayerNorm(shape.width, eps=shape.norm_eps) if shape.norm_before else nn.Identity()
        self.layers = nn.ModuleList(Layer(shape, index) for index in range(shape.layers))
        self.norm_after = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.projection: nn.Module = nn.Identity()
        if shape.embedding:
            self.projection = nn.Linear(shape.width, shape.embedding, bias=shape.projection_bias)

    @property
    def stack(self) -> list[Layer]:
        """The layers, first to last."""
        return cast(list[Layer], list(self.layers))

    def extra_repr(self) -> str:
        return self.shape.model_dump_json()

    def embed_patches(self, images: Tensor, kept: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Tokens (n, 1 + number kept, width) in front of the first layer.

        `kept` are the patches to embed in raster order (None: all); pixels are gathered before anything is
        computed. `positions` are rows of the position table for the class token and the kept patches (None: row
        0 for the class token, row i + 1 for patch i).
        """
        patches = F.unfold(images, self.shape.patch_size, stride=self.shape.patch_size).transpose(1, 2)
        if kept is not None:
            patches = patches[:, kept]
            if positions is None:
                positions = F.pad(kept + 1, (1, 0))
        table = self.positions if positions is None else self.positions[positions]
        class_token = self.class_token.expand(images.shape[0], 1, -1)  # `len` would fix the batch in exports
        result: Tensor = self.norm_before(torch.cat([class_token, self.patch(patches)], dim=1) + table)
        return result

    def project(self, tokens: Tensor) -> Tensor:
        """Embeddings (n, embedding) from the tokens behind the last layer."""
        result: Tensor = self.projection(self.norm_after(tokens[:, 0]))
        return result

    def forward(self, images: Tensor, kept: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        tokens = self.embed_patches(images, kept, positions)
        for layer in self.stack:
            tokens = layer(tokens)
        return self.project(tokens)
