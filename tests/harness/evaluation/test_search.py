"""Nearest neighbours by both backends against the definition, ties and the own image included."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.evaluation import search as module
from subnetbench.harness.evaluation.search import fastest_backend, score_blocks, search

BACKENDS = ("torch", "faiss")


@pytest.mark.parametrize("backend", BACKENDS)
@settings(deadline=None)
@given(st.data())
def test_neighbours_are_the_definition(backend, data):
    pytest.importorskip("faiss")
    n, m = data.draw(st.integers(2, 30)), data.draw(st.integers(1, 5))
    numbers = st.integers(-2, 2).map(float)  # dot products are exact, and ties abound
    gallery = data.draw(arrays(np.float32, (n, 2), elements=numbers))
    query = data.draw(arrays(np.float32, (m, 2), elements=numbers))
    own = data.draw(st.none() | arrays(np.int64, m, elements=st.integers(-1, n - 1)))
    k = data.draw(st.integers(1, n - (own is not None)))
    found = search(torch.from_numpy(query), torch.from_numpy(gallery), k, own=own, similarity="dot", backend=backend)
    for i, row in enumerate(query @ gallery.T):
        order = sorted(range(n), key=lambda item, row=row: (-row[item], item))
        assert found[i].tolist() == [item for item in order if own is None or item != own[i]][:k]


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_backends_agree_on_all_similarities(similarity):
    pytest.importorskip("faiss")
    generator = torch.Generator().manual_seed(0)
    gallery = torch.randn(500, 24, generator=generator, dtype=torch.float64)
    query = torch.randn(40, 24, generator=generator, dtype=torch.float64)
    scores = {
        "dot": query @ gallery.T,
        "cosine": torch.nn.functional.cosine_similarity(query[:, None], gallery[None], dim=2),
        "euclidean": -torch.cdist(query, gallery),
    }[similarity]
    expected = scores.topk(20, dim=1).indices
    for backend in BACKENDS:
        assert torch.equal(search(query, gallery, 20, similarity=similarity, backend=backend), expected)


def test_blocks_cover_the_queries_in_bounded_memory(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    query, gallery = torch.randn(23, 8, generator=generator), torch.randn(10, 8, generator=generator)
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * 10 * 5)
    rows = torch.tensor([3, 20, 7, 7, 1, 0, 22, 5, 6, 2, 11])
    parts = [(part, scores.clone()) for part, scores in score_blocks(query, gallery, rows)]
    assert [len(scores) for _, scores in parts] == [5, 5, 1]
    assert [part.start for part, _ in parts] == [0, 5, 10]
    torch.testing.assert_close(torch.cat([scores for _, scores in parts]), query[rows] @ gallery.T)
    assert sum(len(scores) for _, scores in score_blocks(query, gallery)) == 23


def test_faiss_is_chosen_only_where_it_pays(monkeypatch):
    pytest.importorskip("faiss")
    cpu = torch.device("cpu")
    assert fastest_backend(20_000, 20_000, 10, cpu) == "faiss"
    assert fastest_backend(20_000, 20_000, 10, torch.device("cuda")) == "torch"
    assert fastest_backend(20_000, 20_000, 1000, cpu) == "torch"
    assert fastest_backend(100, 1000, 10, cpu) == "torch"
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert fastest_backend(20_000, 20_000, 10, cpu) == "torch"


def test_k_beyond_the_gallery_is_refused():
    x = torch.eye(4)
    assert search(x, x, 4).shape == (4, 4)
    with pytest.raises(UserError, match=r"k: .*got 5.*1 to 4"):
        search(x, x, 5)
    with pytest.raises(UserError, match=r"k: .*got 4.*1 to 3"):
        search(x, x, 4, own=np.arange(4))
    with pytest.raises(UserError, match=r"k: .*got 0"):
        search(x, x, 0)
