"""The cascade engine: answers, what is encoded when, and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from published.cascades import cached, cached_fractions
from subnetbench.harness.core.errors import RunFailure, UserError
from subnetbench.methods.parts.text_image import cascade as module
from subnetbench.methods.parts.text_image.cascade import Cascade, Level


def embeddings(rows: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def stored_level(number: int, images: torch.Tensor, texts: torch.Tensor, calls: list | None = None) -> Level:
    def embed_images(indices: np.ndarray) -> torch.Tensor:
        if calls is not None:
            calls.append((number, indices.tolist()))
        return images[torch.from_numpy(indices)]

    return Level(f"image {number}", f"text {number}", embed_images, lambda queries: texts[list(queries)])


def random_levels(count: int, size: int = 60, queries: int = 20, width: int = 8, seed: int = 0) -> list[Level]:
    return [
        stored_level(i, embeddings(size, width, seed + i), embeddings(queries, width, seed + 10 + i))
        for i in range(count)
    ]


def built(levels: list[Level], size: int = 60, **options: object) -> Cascade:
    cascade = Cascade(levels, size, **options)
    cascade.build()
    return cascade


def plain_search(level: Level, size: int, queries: int, k: int) -> np.ndarray:
    """Cosine ranking in float64 by a full sort, ties by index."""
    unit = torch.nn.functional.normalize
    images = unit(level.embed_images(np.arange(size)).double(), dim=1)
    scores = unit(level.embed_texts(range(queries)).double(), dim=1) @ images.T
    return scores.argsort(dim=1, descending=True, stable=True)[:, :k].numpy()


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_one_level_is_plain_search(backend):
    (level,) = random_levels(1)
    answers = built([level], backend=backend).search(range(20), k=7)
    assert (answers.ranking == plain_search(level, 60, 20, 7)).all()
    assert not answers.image_encodes.any()


def test_handing_on_everything_gives_the_last_levels_ranking():
    levels = random_levels(3)
    answers = built(levels).search(range(20), k=9, m=[60, 60])
    assert (answers.ranking == plain_search(levels[-1], 60, 20, 9)).all()


def test_a_repeated_query_encodes_nothing():
    cascade = built(random_levels(3))
    first = cascade.search([3], k=2, m=[9, 4])
    again = cascade.search([3], k=2, m=[9, 4])
    assert first.image_encodes.tolist() == [[0, 9, 4]]
    assert again.image_encodes.tolist() == [[0, 0, 0]]
    assert (again.ranking == first.ranking).all()


def test_every_image_is_encoded_once_a_level_and_only_when_it_is_a_candidate():
    calls: list = []
    size, width = 60, 8
    levels = [stored_level(i, embeddings(size, width, i), embeddings(20, width, 9 + i), calls) for i in range(2)]
    cascade = Cascade(levels, size, encode_batch=13)
    cascade.build()
    assert [i for _, part in calls for i in part] == list(range(size))
    assert {number for number, _ in calls} == {0}
    calls.clear()
    answers = cascade.search(range(20), k=2, m=[5])
    assert {number for number, _ in calls} == {1}
    assert max(len(part) for _, part in calls) <= 13
    encoded = [i for _, part in calls for i in part]
    assert len(encoded) == len(set(encoded)) == answers.image_encodes[:, 1].sum()
    assert set(encoded) == set(plain_search(levels[0], size, 20, 5).flatten().tolist())
    assert cached_fractions(cascade) == (1.0, len(encoded) / size)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 25),
    st.lists(st.integers(1, 40), min_size=3, max_size=3).map(lambda widths: sorted(widths, reverse=True)),
)
def test_batches_of_any_size_pay_and_answer_like_single_queries(seed, batch, widths):
    *m, k = widths
    levels = random_levels(3, size=40, queries=15, seed=seed)
    single = built(levels, 40).search(range(15), k=k, m=m, batch=1)
    batched = built(levels, 40).search(range(15), k=k, m=m, batch=batch)
    assert (single.ranking == batched.ranking).all()
    assert (single.image_encodes == batched.image_encodes).all()
    assert (single.text_encodes == batched.text_encodes).all()


def test_levels_share_caches_and_texts_by_identity():
    images, texts = embeddings(60, 8, 0), embeddings(20, 8, 1)
    first, second, third = random_levels(3)
    second = Level("same", "text", lambda i: images[torch.from_numpy(i)], lambda q: texts[list(q)])
    third = Level("same", "text", second.embed_images, second.embed_texts)
    answers = built([first, second, third]).search(range(20), k=3, m=[10, 5])
    assert answers.text_encodes.sum(axis=0).tolist() == [20, 20, 0]
    assert answers.image_encodes[:, 2].sum() == 0


def test_a_hit_must_survive_the_first_cut():
    levels, labels = random_levels(2), np.arange(20)
    ranking = built(levels).search(range(20), k=4, m=[6]).ranking
    first_cut = plain_search(levels[0], 60, 20, 6)
    hits = (ranking == labels[:, None]).any(axis=1)
    assert (hits <= (first_cut == labels[:, None]).any(axis=1)).all()


@pytest.mark.parametrize("backend", ["torch", "faiss"])
@pytest.mark.parametrize("batch", [1, 20])
def test_ties_go_to_the_lower_index(backend, batch):
    repeated = embeddings(3, 8, 0).repeat(20, 1)  # every image 20 times
    texts = embeddings(20, 8, 1)
    level = stored_level(0, repeated, texts)
    ranking = built([level], backend=backend).search(range(20), k=45, batch=batch).ranking
    scores = torch.nn.functional.normalize(texts, dim=1) @ torch.nn.functional.normalize(repeated[:3], dim=1).T
    for row, order in zip(ranking, scores.argsort(dim=1, descending=True), strict=True):
        best, middle, _ = order.tolist()
        assert row[:40].tolist() == [*range(best, 60, 3), *range(middle, 60, 3)]


def test_near_ties_beyond_float32_are_decided_the_same_way_in_any_batch():
    base = torch.nn.functional.normalize(embeddings(1, 64, 0), dim=1)
    images = base + 1e-7 * embeddings(4000, 64, 1)
    texts = base + 0.3 * embeddings(8, 64, 2)
    level = stored_level(0, images, texts)
    single = built([level], 4000).search(range(8), k=30, batch=1).ranking
    for backend in ("torch", "faiss"):
        assert (built([level], 4000, backend=backend).search(range(8), k=30).ranking == single).all()


def test_equal_embeddings_hand_on_the_lowest_indices():
    blind = stored_level(0, torch.ones(60, 8), embeddings(20, 8, 0))
    (sharp,) = random_levels(1, seed=5)
    sharp = Level("sharp", "sharp", sharp.embed_images, sharp.embed_texts)
    cascade = built([blind, sharp])
    cascade.search(range(20), k=1, m=[50])
    assert cached(cascade, 1).nonzero()[0].tolist() == list(range(50))


def test_memory_is_bounded_by_the_blocks(monkeypatch):
    levels = random_levels(2)
    whole = built(levels).search(range(20), k=5, m=[30])
    monkeypatch.setattr(module, "BLOCK", 100)
    assert (built(levels).search(range(20), k=5, m=[30]).ranking == whole.ranking).all()


@pytest.mark.parametrize(("m", "k"), [([], 1), ([5, 5], 1), ([61], 1), ([4], 5), ([0], 0), ([5], 0), ([5], -1)])
def test_widths_are_checked_and_never_clipped(m, k):
    with pytest.raises(UserError):
        built(random_levels(2)).search(range(20), k=k, m=m)


def test_k_may_equal_the_last_width():
    ranking = built(random_levels(2)).search(range(20), k=5, m=[5]).ranking
    assert ranking.shape == (20, 5)


def test_misuse_is_named():
    levels = random_levels(1)
    with pytest.raises(UserError, match="build"):
        Cascade(levels, 60).search([0], k=1)
    with pytest.raises(UserError, match="level"):
        Cascade([], 60)
    with pytest.raises(UserError, match="no images"):
        Cascade(levels, 0)
    with pytest.raises(UserError, match="query"):
        built(levels).search([], k=1)


def test_levels_in_different_spaces_are_refused():
    level = stored_level(0, embeddings(60, 8, 0), embeddings(20, 9, 1))
    with pytest.raises(UserError, match="different spaces"):
        built([level]).search(range(20), k=1)
    first, second = random_levels(2)
    second = stored_level(1, embeddings(60, 8, 0), embeddings(20, 9, 1))
    with pytest.raises(UserError, match="different spaces"):
        built([first, second]).search(range(20), k=1, m=[5])


def test_embeddings_that_are_not_finite_end_the_run():
    images = embeddings(60, 8, 0)
    images[7, 3] = torch.nan
    with pytest.raises(RunFailure, match="finite"):
        built([stored_level(0, images, embeddings(20, 8, 1))])


def test_building_again_forgets_the_caches():
    cascade = built(random_levels(2))
    cascade.search(range(20), k=1, m=[5])
    assert cascade.build().tolist() == [60, 0]
    assert cached_fractions(cascade) == (1.0, 0.0)
