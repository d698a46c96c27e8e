import pytest
import torch
from torch import nn

from subnetbench.methods.parts.optim.clipping import clip_in_place, scale_to_norm, total_norm


def test_clipping_is_pytorchs():
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,))]
    for limit in (0.5, 100.0):
        gradients = [torch.randn(p.shape, generator=generator) for p in parameters]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        expected = nn.utils.clip_grad_norm_(parameters, limit)
        assert torch.allclose(clip_in_place(gradients, limit), expected)
        assert all(torch.allclose(g, p.grad) for g, p in zip(gradients, parameters, strict=True))


def test_nothing_to_clip():
    assert total_norm([]) == 0
    assert clip_in_place([], 1.0) == 0


def test_small_norms_are_left_alone_and_large_ones_brought_down():
    tensors = [torch.tensor([3.0, 4.0])]
    scale_to_norm(tensors, total_norm(tensors), 5.1)
    assert tensors[0].tolist() == [3, 4]
    scale_to_norm(tensors, torch.tensor(10.0), 5.0)
    assert tensors[0].tolist() == pytest.approx([1.5, 2.0])
