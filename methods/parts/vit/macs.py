"""Multiply-accumulates of the parts of a vision transformer (Kwon et al. 2022, arXiv 2204.09656)."""


def macs_per_head(tokens: int, width: int, head_width: int) -> int:
    """One attention head of one layer: its four projections, the scores and the mixing (Kwon et al. 2022)."""
    return 4 * tokens * width * head_width + 2 * tokens**2 * head_width


def macs_per_neuron(tokens: int, width: int) -> int:
    """One neuron of one MLP: its row of the first and its column of the second linear layer."""
    return 2 * tokens * width
