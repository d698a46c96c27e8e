"""Training of a student's head alone, and the file it is stored under, as in the published cascades."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from subnetbench.methods.parts.text_image.clip_student import cosine_distillation_loss


def published_weights_file(checkpoint: str, architecture: str, *, layers: int = 1, hidden: int = 512) -> str:
    """The file name under which the published code stores a head, for the teacher `checkpoint`."""
    return f"{checkpoint.replace('/', '-')}_{architecture}_{hidden}_{layers}.pt"


def distil_head(
    head: nn.Module,
    features: Callable[[Tensor], Tensor],
    targets: Tensor,
    *,
    epochs: int,
    batch_size: int = 64,
    lr: float = 1e-3,
    order: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Train `head` in place with Adam towards the teacher's embeddings `targets` (n, d); losses of all steps.

    `features` gives the head's inputs for image indices: rows of what was computed once (`cached.__getitem__`), or
    the backbone run again each time. `order` gives the permutation of an epoch; as published, the images are taken
    as they come. The last short batch of an epoch is kept.
    """
    optimizer = torch.optim.Adam(head.parameters(), lr=lr)
    losses = []
    for epoch in range(epochs):
        indices = torch.arange(len(targets)) if order is None else order(epoch)
        for rows in indices.split(batch_size):
            loss = cosine_distillation_loss(targets[rows], head(features(rows)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses)
