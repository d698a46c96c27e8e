import pytest
import torch
from torch import nn

from subnetbench.methods.parts.norm_clipping import clip_factor, clip_in_place, total_norm


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


def test_factor_is_never_above_one():
    assert clip_factor(torch.tensor(0.0), 2.0) == 1
    assert clip_factor(torch.tensor(4.0), 2.0).item() == pytest.approx(0.5, rel=1e-5)
