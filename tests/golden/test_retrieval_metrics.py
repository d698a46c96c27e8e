"""Parity of the retrieval metrics with two published implementations."""

import numpy as np
import pytest
import torch

from published.rankings import per_query_of_order
from subnetbench.harness.evaluation.ranking import descending_order
from subnetbench.harness.evaluation.relevance import Relevance
from subnetbench.harness.evaluation.retrieval import (
    average,
    retrieval_metrics,
    retrieval_per_query,
)


@pytest.mark.golden("resolution_distillation", "retrieval_metrics")
def test_resolution_distillation(case):
    names = sorted({key.split(".")[0] for key in case})
    assert names
    for name in names:
        recorded = case.under(f"{name}.")
        student, teacher = torch.from_numpy(recorded["student"]), torch.from_numpy(recorded["teacher"])
        check_side(student, student, recorded, "sym")
        check_side(student, teacher, recorded, "asym")


def check_side(query, gallery, recorded, side):
    """Their values follow from their ranking to the last bits, and from the embeddings where the rankings agree."""
    relevance = Relevance.from_labels(recorded["labels"], recorded["labels"], own=np.arange(len(query)))
    expected = {"map_trapezoid": recorded[f"{side}_map"]}
    for ours, theirs in (("recall", "recall"), ("precision_oxford", "precision"), ("map_trapezoid", "map")):
        for k, value in zip(recorded["kappas"].tolist(), recorded[f"{side}_{theirs}_at_k"], strict=True):
            expected[f"{ours}_at_{k}"] = value
    order = recorded[f"{side}_ranks"].astype(np.int64).T
    per_query = per_query_of_order(order, relevance, list(expected))
    np.testing.assert_allclose(per_query["map_trapezoid"], recorded[f"{side}_ap"], rtol=0, atol=1e-12)
    scored = ~np.isnan(per_query["map_trapezoid"])
    for k, values in zip(recorded["kappas"].tolist(), recorded[f"{side}_precision_at_k_per_query"].T, strict=True):
        np.testing.assert_allclose(per_query[f"precision_oxford_at_{k}"][scored], values[scored], rtol=0, atol=1e-12)
    means = average(per_query)
    for name, value in expected.items():
        assert means[name] == pytest.approx(float(value), abs=1e-12), name

    ours = descending_order(query @ gallery.T).numpy()
    same = (ours == order).all(axis=1)
    # Only rounding may order two neighbours differently.
    scores = np.take_along_axis((query.double() @ gallery.double().T).numpy(), order, axis=1)
    assert np.diff(scores, axis=1).max() < 1e-6
    assert same.mean() > 0.9
    from_embeddings = retrieval_per_query(query, gallery, relevance, list(expected), similarity="dot")
    for name in expected:
        np.testing.assert_allclose(from_embeddings[name][same], per_query[name][same], rtol=0, atol=1e-12)


@pytest.mark.golden("hgsl", "metrics")
def test_hgsl(case):
    gallery = torch.from_numpy(case["embeddings"])
    if case["is_query"]:
        query = torch.from_numpy(case["query_embeddings"])
        relevance = Relevance.from_labels(case["query_labels"], case["labels"])
    else:
        query, relevance = gallery, Relevance.from_labels(case["labels"])
    expected = {
        f"{ours}_at_{k}": value / 100
        for ours, theirs in (("recall", "recall"), ("precision", "precision"), ("map_over_hits", "ap"))
        for k, value in zip(case[f"{theirs}_k"].tolist(), case[theirs].tolist(), strict=True)
    }
    found = retrieval_metrics(query, gallery, relevance, list(expected))
    assert found["queries_without_positives"] == 0
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-11), name
