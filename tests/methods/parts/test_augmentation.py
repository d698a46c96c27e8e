import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.views.augmentation import crop_flip, crop_flip_parameters


@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 5), st.integers(0, 999))
def test_equals_padding_cropping_and_flipping_one_by_one(count, height, width, padding, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, height, width), generator=generator, dtype=torch.uint8)
    offsets = torch.randint(2 * padding + 1, (count, 2), generator=generator)
    flips = torch.rand(count, generator=generator) < 0.5
    mine = crop_flip(images, offsets, flips, padding)
    assert mine.dtype == torch.uint8
    for image, (top, left), flip, result in zip(images, offsets.tolist(), flips, mine, strict=True):
        expected = tv.crop(tv.pad(image, [padding]), top, left, height, width)
        assert torch.equal(result, tv.horizontal_flip(expected) if flip else expected)


def test_parameters_belong_to_seed_epoch_and_sample():
    samples = np.array([5, 900, 3, 17])
    offsets, flips = crop_flip_parameters(1, "train", 4, samples)
    parts = [crop_flip_parameters(1, "train", 4, samples[part]) for part in ([3, 0], [2])]
    assert torch.equal(torch.cat([part[0] for part in parts]), offsets[[3, 0, 2]])
    assert torch.equal(torch.cat([part[1] for part in parts]), flips[[3, 0, 2]])
    many = np.arange(500)
    first, _ = crop_flip_parameters(1, "train", 4, many)
    for other in ((2, "train", 4), (1, "ticket", 4), (1, "train", 5)):
        assert (crop_flip_parameters(*other, many)[0] != first).any(1).double().mean() > 0.9


def test_all_windows_and_both_directions_are_equally_likely():
    offsets, flips = crop_flip_parameters(3, "train", 0, np.arange(40_500), padding=4)
    counts = torch.bincount(offsets[:, 0] * 9 + offsets[:, 1], minlength=81).double()
    assert ((counts - 500) ** 2 / 500).sum() < 80 + 5 * np.sqrt(160)
    assert abs(flips.double().mean() - 0.5) < 4 * 0.5 / np.sqrt(len(flips))


def test_negative_padding_is_refused():
    with pytest.raises(UserError, match="padding"):
        crop_flip_parameters(0, "train", 0, np.arange(3), padding=-1)
