"""Retrieval metrics against their definitions, against other libraries, and at the edges."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from published.rankings import metrics_of_order, per_query_of_order
from subnetbench.harness.core.errors import DataError, RunFailure, UserError
from subnetbench.harness.evaluation import ranking, search
from subnetbench.harness.evaluation.relevance import Relevance
from subnetbench.harness.evaluation.retrieval import (
    retrieval_metrics,
    retrieval_per_query,
)

ALL = (
    "recall_at_{k}",
    "precision_at_{k}",
    "precision_oxford_at_{k}",
    "r_precision",
    "map_at_r",
    "map",
    "map_trapezoid",
    "map_at_{k}",
    "map_trapezoid_at_{k}",
    "map_over_hits_at_{k}",
)


def brute_force(ranked: Sequence[int], positives: set[int], k: int) -> dict[str, float]:
    """Every metric of one query from its ranking (ignored items removed), in the words of its definition."""
    hit = [item in positives for item in ranked]
    r = len(positives)

    def precision(first: int) -> float:
        return sum(hit[:first]) / first

    def area(first: int) -> float:
        """Trapezoids between the precision before and at each hit."""
        return sum(((precision(i) if i else 1.0) + precision(i + 1)) / 2 for i in range(min(first, len(hit))) if hit[i])

    def at_hits(first: int) -> float:
        return sum(precision(i + 1) for i in range(min(first, len(hit))) if hit[i])

    last = max(i + 1 for i, is_hit in enumerate(hit) if is_hit)
    return {
        f"recall_at_{k}": float(any(hit[:k])),
        f"precision_at_{k}": sum(hit[:k]) / k,
        f"precision_oxford_at_{k}": precision(min(last, k)),
        "r_precision": precision(r),
        "map_at_r": at_hits(r) / r,
        "map": at_hits(len(hit)) / r,
        "map_trapezoid": area(len(hit)) / r,
        f"map_at_{k}": at_hits(k) / min(r, k),
        f"map_trapezoid_at_{k}": area(k) / min(r, k),
        f"map_over_hits_at_{k}": at_hits(k) / max(1, sum(hit[:k])),
    }


def quantised(n: int) -> st.SearchStrategy[np.ndarray]:
    """Embeddings whose dot products are small integers, exact in any order of summation: ties abound."""
    return arrays(np.float32, (n, 2), elements=st.integers(-2, 2).map(float))


@st.composite
def label_problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Relevance, list[set[int]], list[set[int]]]:
    """Query and gallery embeddings, relevance, and per query the positives and what is out of the ranking."""
    n = draw(st.integers(2, 25))
    gallery, gallery_labels = draw(quantised(n)), draw(arrays(np.int64, n, elements=st.integers(0, 3)))
    kind = draw(st.sampled_from(["own gallery", "same images", "separate"]))
    if kind == "own gallery":
        query, labels, own = gallery, gallery_labels, np.arange(n)
        relevance = Relevance.from_labels(labels)
    elif kind == "same images":
        query, labels, own = draw(quantised(n)), gallery_labels, np.arange(n)
        relevance = Relevance.from_labels(labels, gallery_labels, own)
    else:
        m = draw(st.integers(1, 6))
        query, labels = draw(quantised(m)), draw(arrays(np.int64, m, elements=st.integers(0, 4)))
        own = draw(st.none() | arrays(np.int64, m, elements=st.integers(-1, n - 1)))
        relevance = Relevance.from_labels(labels, gallery_labels, own)
    out = [set() if own is None or own[i] < 0 else {int(own[i])} for i in range(len(labels))]
    positives = [set(np.flatnonzero(gallery_labels == label).tolist()) - out[i] for i, label in enumerate(labels)]
    return query, gallery, relevance, positives, out


@st.composite
def list_problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Relevance, list[set[int]], list[set[int]]]:
    n, m = draw(st.integers(2, 25)), draw(st.integers(1, 6))
    some = st.lists(st.integers(0, n - 1), max_size=n // 2)
    chosen = [draw(some) for _ in range(m)]
    ignored = [draw(some) for _ in range(m)]
    relevance = Relevance.from_lists(chosen, ignored, n)
    out = [set(items) for items in ignored]
    positives = [set(items) - out[i] for i, items in enumerate(chosen)]
    return draw(quantised(m)), draw(quantised(n)), relevance, positives, out


@settings(deadline=None)
@given(st.one_of(label_problems(), list_problems()), st.data())
def test_every_metric_is_its_definition(problem, data):
    query, gallery, relevance, positives, out = problem
    k = data.draw(st.integers(1, len(gallery) - 1))
    names = [name.format(k=k) for name in ALL]
    assert relevance.counts.tolist() == [len(items) for items in positives]
    scores = query @ gallery.T
    order = np.array([sorted(range(len(gallery)), key=lambda i: (-row[i], i)) for row in scores])
    ways = []
    with pytest.MonkeyPatch.context() as patch:
        arguments = torch.from_numpy(query), torch.from_numpy(gallery), relevance
        for most_counted, buckets_share, block in ((0, 0, 1), (100, 0, 2**20), (0, 100, 400)):
            patch.setattr(ranking, "MOST_COUNTED", most_counted)
            patch.setattr(ranking, "BUCKETS_SHARE", buckets_share)
            patch.setattr(search, "BLOCK_BYTES", block)
            ways.append(retrieval_per_query(*arguments, names, similarity="dot"))
    ways.append(per_query_of_order(order, relevance, names))
    for i in range(len(query)):
        ranked = [item for item in order[i].tolist() if item not in out[i]]
        expected = brute_force(ranked, positives[i], k) if positives[i] else dict.fromkeys(names, np.nan)
        for found in ways:
            for name, values in found.items():
                np.testing.assert_allclose(values[i], expected[name], rtol=0, atol=1e-12, err_msg=name)


@settings(deadline=None)
@given(label_problems())
def test_means_are_over_the_queries_with_positives(problem):
    query, gallery, relevance, positives, _ = problem
    assume(any(positives))
    given_tensors = torch.from_numpy(query), torch.from_numpy(gallery), relevance
    per_query = retrieval_per_query(*given_tensors)
    means = retrieval_metrics(*given_tensors)
    assert means.pop("queries") == sum(map(bool, positives))
    assert means.pop("queries_without_positives") == len(query) - sum(map(bool, positives))
    assert means == {name: pytest.approx(np.nanmean(values)) for name, values in per_query.items()}
    assert all(0 <= value <= 1 for value in means.values())
    recalls = [means[f"recall_at_{k}"] for k in (1, 2, 4, 8) if f"recall_at_{k}" in means]
    assert recalls == sorted(recalls)
    assert means["map_trapezoid"] <= means["map"] + 1e-12


def embeddings(n: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=n)
    centres = random.standard_normal((classes, 16))
    noise = random.standard_normal((n, 16))
    return torch.from_numpy(centres[labels] + 1.5 * noise).float(), labels


def test_agrees_with_pytorch_metric_learning():
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    x, labels = embeddings(300, 12)
    y, gallery_labels = embeddings(200, 12, seed=1)
    x, y = torch.nn.functional.normalize(x), torch.nn.functional.normalize(y)
    metrics = ("precision_at_1", "r_precision", "mean_average_precision_at_r", "mean_average_precision")
    from pytorch_metric_learning.distances import CosineSimilarity

    theirs = AccuracyCalculator(include=metrics, k=None, knn_func=CustomKNN(CosineSimilarity()))
    ours = ("recall_at_1", "r_precision", "map_at_r", "map")
    found = retrieval_metrics(x, x, Relevance.from_labels(labels), ours)
    expected = theirs.get_accuracy(x, torch.from_numpy(labels))
    assert [found[name] for name in ours] == pytest.approx([expected[name] for name in metrics], abs=1e-9)
    found = retrieval_metrics(x, y, Relevance.from_labels(labels, gallery_labels), ours)
    expected = theirs.get_accuracy(x, torch.from_numpy(labels), y, torch.from_numpy(gallery_labels))
    assert [found[name] for name in ours] == pytest.approx([expected[name] for name in metrics], abs=1e-9)


def test_map_agrees_with_scikit_learn():
    from sklearn.metrics import average_precision_score

    x, labels = embeddings(150, 5)
    y, gallery_labels = embeddings(120, 5, seed=1)
    scores = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(y).T
    found = retrieval_per_query(x, y, Relevance.from_labels(labels, gallery_labels), ["map"])["map"]
    expected = [
        average_precision_score(gallery_labels == label, row.numpy()) for label, row in zip(labels, scores, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_devices_agree():
    x, labels = embeddings(400, 20)
    whole = x.mul(8).round()  # exact products
    some = [np.array([1, 2, 3])] * 200
    for query, relevance in (
        (whole, Relevance.from_labels(labels)),
        (whole[:200], Relevance.from_lists(some, [np.array([3, 4])] * 200, 400)),
    ):
        on_cpu = retrieval_metrics(query, whole, relevance, similarity="dot")
        assert retrieval_metrics(query.cuda(), whole.cuda(), relevance, similarity="dot") == on_cpu


def test_euclidean_ranks_by_distance():
    x, labels = embeddings(80, 5)
    y, gallery_labels = embeddings(60, 5, seed=1)
    relevance = Relevance.from_labels(labels, gallery_labels)
    order = torch.cdist(x.double(), y.double()).argsort(dim=1, stable=True).numpy()
    found = retrieval_metrics(x, y, relevance, similarity="euclidean")
    assert found == pytest.approx(metrics_of_order(order, relevance), abs=1e-12)


def test_own_image_is_removed_by_index_not_by_rank():
    # Image 1 is a copy of image 0 with another label, and as a query image 2's nearest neighbour is not itself.
    gallery = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.1]])
    query = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.1]])
    relevance = Relevance.from_labels(labels := np.array([0, 1, 1, 0]), labels, own=np.arange(4))
    found = retrieval_per_query(query, gallery, relevance, ["recall_at_1", "recall_at_2", "map"])
    assert found["recall_at_1"].tolist() == [0, 0, 0, 1]
    assert found["recall_at_2"].tolist() == [1, 0, 1, 1]
    assert found["map"] == pytest.approx([1 / 2, 1 / 3, 1 / 2, 1])


def test_classes_with_one_image_are_dropped_and_counted():
    x, _ = embeddings(12, 3)
    labels = np.array([0, 0, 0, 1, 1, 2, 3, 4, 4, 4, 4, 5])
    found = retrieval_metrics(x, x, Relevance.from_labels(labels))
    assert (found["queries"], found["queries_without_positives"]) == (9, 3)
    keep = np.isin(labels, [0, 1, 4])
    alone = Relevance.from_labels(labels[keep], labels, own=np.flatnonzero(keep))
    assert retrieval_metrics(x[keep], x, alone) == {**found, "queries_without_positives": 0}


def test_a_collapsed_embedding_scores_like_the_index_order():
    labels = np.repeat(np.arange(10), 10)
    found = retrieval_metrics(torch.ones(100, 4), torch.ones(100, 4), Relevance.from_labels(labels))
    assert found["recall_at_1"] == pytest.approx(0.1)


def test_default_metrics_fit_the_gallery():
    x, labels = embeddings(6, 2)
    found = retrieval_metrics(x, x, Relevance.from_labels(labels))
    assert [name for name in found if name.startswith("recall")] == ["recall_at_1", "recall_at_2", "recall_at_4"]


def test_unusable_input_is_refused():
    x, labels = embeddings(20, 3)
    relevance = Relevance.from_labels(labels)
    with pytest.raises(UserError, match=r"k: more than the gallery holds .* .got 20.; allowed: 1 to 19"):
        retrieval_metrics(x, x, relevance, ["recall_at_20"])
    assert retrieval_metrics(x, x, relevance, ["recall_at_19"])["recall_at_19"] == 1
    with pytest.raises(UserError, match="'recal_at_5'; did you mean 'recall_at_5'"):
        retrieval_metrics(x, x, relevance, ["recal_at_5"])
    with pytest.raises(UserError, match="retrieval metric 'top1'"):
        retrieval_metrics(x, x, relevance, ["top1"])
    with pytest.raises(UserError, match=r"\(20, 19\).*allowed: \(20, 20\)"):
        retrieval_metrics(x, x[1:], relevance)
    with pytest.raises(UserError, match="same dimensions"):
        retrieval_metrics(x, x[:, 1:], relevance)
    with pytest.raises(UserError, match=r"similarity.*'cosinus'"):
        retrieval_metrics(x, x, relevance, similarity="cosinus")
    with pytest.raises(DataError, match="no query has a positive"):
        retrieval_metrics(x, x, Relevance.from_labels(np.arange(20)))
    for bad in (torch.nan, torch.inf):
        broken = x.clone()
        broken[3, 4] = bad
        with pytest.raises(RunFailure, match="not finite") as caught:
            retrieval_metrics(x, broken, relevance)
        assert caught.value.reason == "nan"


def test_a_short_order_serves_only_metrics_that_see_its_places():
    relevance = Relevance.from_labels(np.array([0, 1]), np.array([0, 1, 0, 1, 0, 1]), own=np.array([0, -1]))
    order = np.array([[0, 1, 4], [0, 1, 2]])
    found = metrics_of_order(order, relevance, ["recall_at_1", "recall_at_2", "map_at_2"])
    assert found["recall_at_1"] == 0
    assert found["recall_at_2"] == 1
    assert found["map_at_2"] == pytest.approx((1 / 2 / 2 + 1 / 2 / 2) / 2)
    for name in ("recall_at_3", "map", "r_precision"):  # query 0 has only two places beside its own image
        with pytest.raises(UserError, match=f"metrics: needs more than the first 2 ranks .got '{name}'"):
            metrics_of_order(order, relevance, [name])
