"""Token merging (ToMe, Bolya et al., ICLR 2023): similar tokens of a ViT are averaged in every layer, without training.

Each image merges its own tokens, so an embedding does not depend on the batch.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from subnetbench.harness.method import UserError
from subnetbench.methods.parts.vit.model import Layer, PlainViT

MergeSchedule = Literal["constant", "decreasing"]


def merges_by_layer(patches: int, layers: int, share: float, schedule: MergeSchedule) -> tuple[int, ...]:
    """How many tokens each layer merges away, so that int(share * patches) are gone in the end.

    Args:
        patches: Tokens in front of the first layer, without the class token.
        layers: Number of layers.
        share: 0 to below 1.
        schedule: `constant`: the same number in each layer; `decreasing`: linearly from twice that to none.

    Raises:
        UserError: More than can be merged. A layer merges pairs, so at most half of the tokens that it meets; what is above
            that is left to the next layer.
    """
    found = _spread(int(share * patches), patches, layers, schedule)
    if found is None:
        most = max(n for n in range(patches) if _spread(n, patches, layers, schedule) is not None)
        allowed = f"< {(most + 1) / patches:g} with {layers} layers"
        raise UserError("more than can be merged", field="merged_share", value=share, allowed=allowed)
    return found


def _spread(wanted: int, patches: int, layers: int, schedule: MergeSchedule) -> tuple[int, ...] | None:
    """`wanted` merges over the layers; None: they do not fit."""
    weights = [1.0] * layers if schedule == "constant" or layers == 1 else [float(i) for i in reversed(range(layers))]
    merges, left = [], patches
    for layer in range(layers):
        due = round(wanted * sum(weights[: layer + 1]) / sum(weights)) - (patches - left)
        # Pairs are of two sets, of which the one with the class token gives; that token stays.
        merges.append(min(due, left // 2))
        left -= merges[-1]
    return tuple(merges) if patches - left == wanted else None


class TokenMergedViT(nn.Module):
    """`vit` whose layer l merges away `merges[l]` tokens between attention and feed-forward.

    Args:
        vit: The encoder.
        merges: One number a layer.
        proportional: Attention counts a token as often as tokens were merged into it.

    Raises:
        UserError: A layer that is to merge has no heads, whose keys say which tokens are alike.
    """

    def __init__(self, vit: PlainViT, merges: Sequence[int], *, proportional: bool = True) -> None:
        super().__init__()
        for index, (count, heads) in enumerate(zip(merges, vit.shape.heads, strict=True)):
            if count and not heads:
                raise UserError("has no heads, so no keys to merge tokens by", field="layer", value=index)
        self.vit, self.merges, self.proportional = vit, tuple(merges), proportional

    def extra_repr(self) -> str:
        return f"merges={self.merges}, proportional={self.proportional}"

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of images (n, channels, size, size)."""
        tokens = self.vit.embed_patches(images)
        sizes = torch.ones_like(tokens[..., :1])
        for layer, count in zip(self.vit.stack, self.merges, strict=True):
            mixed, keys = self._attend(layer, tokens, sizes)
            tokens = tokens + mixed
            if count:
                tokens, sizes = merged(tokens, sizes, keys, count)
            tokens = tokens + layer.feed_forward(layer.feed_forward_norm(tokens))
        return self.vit.project(tokens)

    def _attend(self, layer: Layer, tokens: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """What attention adds to the tokens, and its keys, averaged over heads (n, tokens, head width)."""
        attention = layer.attention
        normed = layer.attention_norm(tokens)
        if attention.heads == 0:
            added: Tensor = attention(normed)
            return added, normed
        batch, length, _ = tokens.shape
        stacked = attention.query_key_value(normed).view(batch, length, 3, attention.heads, attention.head_width)
        query, key, value = stacked.permute(2, 0, 3, 1, 4)
        bias = sizes.log().mT.unsqueeze(1) if self.proportional else None
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        added = attention.output(mixed.transpose(1, 2).reshape(batch, length, -1))
        return added, key.mean(dim=1)


def merged(tokens: Tensor, sizes: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Tokens after bipartite soft matching (the paper's section 3 and appendix D), and how many each stands for.

    Tokens at even places may each be merged into the most similar one, by the cosine of keys, at an odd place; the `count`
    most similar are. What meets is averaged, weighted by sizes. The first token, the class token, stays in front.

    Args:
        tokens: (n, t, width).
        sizes: (n, t, 1), at least 1.
        keys: (n, t, any).
        count: At most (t - 1) // 2.

    Returns:
        Tokens (n, t - count, width), those left at even places first, and sizes (n, t - count, 1).
    """
    unit = F.normalize(keys, dim=-1)
    similarity = unit[:, ::2] @ unit[:, 1::2].mT
    similarity[:, 0] = -torch.inf
    nearest, partner = similarity.max(dim=-1)
    order = nearest.argsort(dim=-1, descending=True, stable=True)
    going, staying = order[:, :count], order[:, count:].sort(dim=-1).values
    target = partner.gather(1, going)

    def brought_together(values: Tensor) -> Tensor:
        even, odd = values[:, ::2], values[:, 1::2]
        received = odd.scatter_add(1, _rows(target, values), even.gather(1, _rows(going, values)))
        return torch.cat([even.gather(1, _rows(staying, values)), received], dim=1)

    weights = brought_together(sizes)
    return brought_together(tokens * sizes) / weights, weights


def _rows(places: Tensor, values: Tensor) -> Tensor:
    return places.unsqueeze(-1).expand(-1, -1, values.shape[-1])
