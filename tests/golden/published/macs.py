"""Multiply-accumulates of whole vision transformers, by the formulas of the published cascades."""

from collections.abc import Sequence

from subnetbench.methods.parts.vit.macs import macs_per_head, macs_per_neuron


def encoder_macs(tokens: int, width: int, head_width: int, heads: Sequence[int], neurons: Sequence[int]) -> int:
    """MACs of the layers of a ViT with these heads and neurons a layer, for `tokens` with the class token.

    Patch embedding, norms, softmax and the final projection are not counted.
    """
    return sum(heads) * macs_per_head(tokens, width, head_width) + sum(neurons) * macs_per_neuron(tokens, width)


def vit_macs(
    *,
    patches: int,
    patch_values: int,
    width: int,
    head_width: int,
    heads: Sequence[int],
    neurons: Sequence[int],
    embedding: int,
) -> int:
    """MACs of a whole ViT image encoder on `patches` patches of `patch_values` numbers each."""
    layers = encoder_macs(patches + 1, width, head_width, heads, neurons)
    return patches * patch_values * width + layers + width * embedding
