"""Token merging against its rule written out for one image, and what it saves."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.evaluation.macs import mac_metrics
from subnetbench.methods.parts.vit.model import PlainViT, ViTShape
from subnetbench.methods.parts.vit.token_merging import TokenMergedViT, merged, merges_by_layer


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_vit(**changed) -> PlainViT:
    torch.manual_seed(0)
    options = {"image_size": 32, "patch_size": 8, "width": 24, "head_width": 6, "heads": (4,) * 3, "neurons": (32,) * 3}
    return PlainViT(ViTShape(**{**options, **changed})).eval()


def by_hand(tokens, sizes, keys, count):
    """The same for one image, token by token: {place: (sum, size)} of what is left, even places before odd ones."""
    even, odd = range(0, len(tokens), 2), range(1, len(tokens), 2)
    near = {i: max(odd, key=lambda j: float(cosine_similarity(keys[i], keys[j], dim=0))) for i in even if i}
    likeness = {i: float(cosine_similarity(keys[i], keys[j], dim=0)) for i, j in near.items()}
    going = sorted(near, key=lambda i: -likeness[i])[:count]
    left = {i: (tokens[i] * sizes[i], sizes[i]) for i in [*(i for i in even if i not in going), *odd]}
    for i in going:
        total, size = left[near[i]]
        left[near[i]] = total + tokens[i] * sizes[i], size + sizes[i]
    return torch.stack([total / size for total, size in left.values()]), torch.stack([s for _, s in left.values()])


@pytest.mark.parametrize(("length", "count"), [(10, 3), (10, 4), (9, 4), (3, 1)])
def test_the_most_similar_pairs_are_averaged_by_size(length, count):
    tokens, keys = draw(2, length, 5), draw(2, length, 4, seed=1)
    sizes = torch.randint(1, 4, (2, length, 1), generator=torch.Generator().manual_seed(2)).float()
    found, weights = merged(tokens, sizes, keys, count)
    for image in range(2):
        expected, left = by_hand(tokens[image], sizes[image], keys[image], count)
        torch.testing.assert_close(found[image], expected)
        torch.testing.assert_close(weights[image], left)
    torch.testing.assert_close(weights.sum(1), sizes.sum(1))
    torch.testing.assert_close(found[:, 0], tokens[:, 0])


def test_nothing_merged_is_the_dense_encoder():
    vit, images = small_vit(), draw(4, 3, 32, 32)
    torch.testing.assert_close(TokenMergedViT(vit, (0, 0, 0))(images), vit(images))


def test_equal_tokens_are_merged_without_a_trace():
    # All patches and positions alike: behind the first layer every patch token is the same, whoever meets.
    vit, images = small_vit(), draw(2, 3, 1, 1).expand(2, 3, 32, 32)
    with torch.no_grad():
        vit.positions[2:] = vit.positions[1]
    merges = merges_by_layer(16, 3, 0.75, "constant")
    torch.testing.assert_close(TokenMergedViT(vit, merges)(images), vit(images))
    # Without it the few that stand for many would count as few.
    assert not torch.allclose(TokenMergedViT(vit, merges, proportional=False)(images), vit(images), atol=1e-4)


def test_images_do_not_see_each_other_and_work_falls():
    vit, images = small_vit(), draw(4, 3, 32, 32)
    network = TokenMergedViT(vit, (4, 4, 4)).eval()
    torch.testing.assert_close(network(images), torch.cat([network(image[None]) for image in images]))
    macs = {each: mac_metrics(each, images[:1])["macs_executed"] for each in (vit, network)}
    # By hand: feed-forward of 13, 9, 5 instead of 17 tokens; attention of 17, 13, 9; matching of even with odd tokens.
    linear = lambda tokens, pairs: tokens * 24 * (4 * 24) + 2 * pairs * 24  # noqa: E731
    attention = sum(linear(t, t * t) for t in (17, 13, 9))
    matching = (9 * 8 + 7 * 6 + 5 * 4) * 6
    assert macs[network] == 16 * 192 * 24 + attention + sum(2 * t * 24 * 32 for t in (13, 9, 5)) + matching
    assert macs[network] < macs[vit]


def test_merges_add_up_to_the_share_within_what_a_layer_can():
    assert merges_by_layer(196, 12, 0.5, "constant") == (8, 8, 8, 9, 8, 8, 8, 8, 9, 8, 8, 8)
    falling = merges_by_layer(196, 12, 0.5, "decreasing")
    assert (sum(falling), falling[-1]) == (98, 0)
    assert list(falling) == sorted(falling, reverse=True)
    assert merges_by_layer(16, 3, 0.75, "decreasing") == (8, 4, 0)
    # Of 16, 12 and 8 tokens each four: one more does not fit into the last layer's pairs.
    assert merges_by_layer(16, 3, 0.8, "constant") == (4, 4, 4)
    with pytest.raises(UserError, match=r"< 0\.8125 with 3 layers"):
        merges_by_layer(16, 3, 0.8125, "constant")


def test_layers_without_heads_cannot_merge():
    vit = small_vit(heads=(4, 0, 4))
    with pytest.raises(UserError, match="no heads"):
        TokenMergedViT(vit, (2, 2, 2))
    assert TokenMergedViT(vit, (2, 0, 2))(draw(1, 3, 32, 32)).shape == (1, 24)
