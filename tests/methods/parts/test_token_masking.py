"""Token masking: which patches are kept, and what the encoder computes on them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.vit.model import PlainViT, ViTShape
from subnetbench.methods.parts.vit.token_masking import PATTERNS, TokenMaskedViT, kept_count, kept_patches


def small_vit() -> PlainViT:
    torch.manual_seed(0)
    shape = ViTShape(image_size=32, patch_size=8, width=24, head_width=6, heads=(4,) * 3, neurons=(32,) * 3)
    return PlainViT(shape).eval()


@pytest.mark.parametrize(
    ("patches", "share", "kept"),
    [(196, 0.25, 147), (196, 0.26, 145), (196, 0.5, 98), (196, 0.74, 50), (196, 0.75, 49), (25, 0.8, 4), (49, 1, 0)],
)
def test_published_counts(patches, share, kept):
    assert kept_count(patches, share) == kept


@given(st.integers(1, 20), st.floats(0, 1), st.sampled_from(PATTERNS), st.integers(0, 99))
def test_masks_are_ascending_and_fixed(side, share, pattern, seed):
    patches = side * side
    kept = kept_patches(patches, share, pattern, seed)
    assert len(kept) == kept_count(patches, share)
    assert (np.diff(kept) > 0).all()
    assert set(kept) <= set(range(patches))
    assert (kept_patches(patches, share, pattern, seed) == kept).all()


def test_random_masks_differ_by_seed_and_the_others_do_not():
    for pattern in PATTERNS:
        first, second = (kept_patches(196, 0.5, pattern, seed) for seed in (0, 1))
        assert (first != second).any() == (pattern == "random")


def test_grid_is_a_checkerboard_and_then_every_second_row_and_column():
    rows, columns = np.divmod(np.arange(196), 14)
    assert set(kept_patches(196, 0.5, "grid")) == set(np.flatnonzero((rows + columns) % 2 == 0))
    assert set(kept_patches(196, 0.75, "grid")) == set(np.flatnonzero((rows % 2 == 0) & (columns % 2 == 0)))


def test_centre_is_the_middle_of_the_image():
    rows, columns = np.divmod(kept_patches(196, 1 - 16 / 196, "centre"), 14)
    assert (np.hypot(rows - 6.5, columns - 6.5) <= 2.6).all()


@pytest.mark.parametrize("published_positions", [False, True])
def test_nothing_masked_is_the_dense_encoder(published_positions):
    vit, images = small_vit(), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        masked = TokenMaskedViT(vit, kept_patches(16, 0.0), published_positions=published_positions)
        torch.testing.assert_close(masked(images), vit(images), atol=2e-5, rtol=0)


def test_masked_patches_are_not_seen_and_kept_ones_are():
    vit, images = small_vit(), torch.randn(1, 3, 32, 32)
    kept = kept_patches(16, 0.5)
    masked = TokenMaskedViT(vit, kept)
    with torch.no_grad():
        before = masked(images)
        for patch in range(16):
            changed = images.clone()
            row, column = divmod(patch, 4)
            changed[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 1
            assert torch.equal(masked(changed), before) == (patch not in kept)


def test_everything_masked_gives_all_images_the_same_embedding():
    masked = TokenMaskedViT(small_vit(), kept_patches(16, 1.0))
    with torch.no_grad():
        embeddings = masked(torch.randn(5, 3, 32, 32))
    assert (embeddings == embeddings[0]).all()


def test_an_embedding_does_not_depend_on_the_batch():
    masked, images = TokenMaskedViT(small_vit(), kept_patches(16, 0.5)), torch.randn(9, 3, 32, 32)
    with torch.no_grad():
        whole = masked(images)
        torch.testing.assert_close(masked(images.flip(0)).flip(0), whole, atol=1e-5, rtol=0)
        torch.testing.assert_close(torch.cat([masked(image[None]) for image in images]), whole, atol=1e-5, rtol=0)


def test_bad_input_is_named():
    with pytest.raises(UserError, match="masked_share"):
        kept_count(16, 1.5)
    with pytest.raises(UserError, match="square"):
        kept_patches(15, 0.5)
    with pytest.raises(UserError, match="did you mean 'grid'"):
        kept_patches(16, 0.5, "gird")  # type: ignore[arg-type]
    for kept in ([3, 2], [1, 1], [-1], [16]):
        with pytest.raises(UserError, match="ascending"):
            TokenMaskedViT(small_vit(), np.array(kept))
