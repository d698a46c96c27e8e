"""Parity with the PrunNet code of the losses around it and of its retrieval metrics."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses
from torch import Tensor

from published.losses import compatible_contrast
from published.rankings import per_query_of_order
from subnetbench.harness.evaluation.relevance import Relevance, revisited_truth
from subnetbench.harness.evaluation.retrieval import retrieval_metrics
from subnetbench.methods.parts.capacity.widths import merge_sfsc
from subnetbench.methods.parts.losses.margin import asymmetric_triplet_loss, evidential_loss, margin_logits


def assert_close(actual: Tensor | np.ndarray, expected: np.ndarray, rel: float, what: str = "") -> None:
    """max|a - b| <= rel * max|b| + 1e-6"""
    actual = actual.detach().numpy() if isinstance(actual, Tensor) else np.asarray(actual)
    assert actual.shape == expected.shape, what
    allowed = rel * np.abs(expected).max(initial=0) + 1e-6
    assert np.abs(actual - expected).max(initial=0) <= allowed, what


@pytest.mark.golden("prunnet_switchnet", "losses")
def test_losses(case):
    def check(values: Tensor, prefix: str, rel: float = 1e-5, name: str = "loss", **inputs: Tensor) -> None:
        assert_close(values, case[f"{prefix}.{name}"], rel, prefix)
        found = torch.autograd.grad(values, list(inputs.values()), retain_graph=True)
        for key, gradient in zip(inputs, found, strict=True):
            assert_close(gradient, case[f"{prefix}.{key}"], 1e-3, f"{prefix}.{key}")

    def given(name: str) -> Tensor:
        return torch.from_numpy(case[name])

    features, class_weights = given("margin.feat").requires_grad_(), given("margin.W").requires_grad_()
    labels, (scale, margin) = given("margin.labels"), case["margin.s_m"].tolist()
    check(F.cross_entropy(F.linear(features, class_weights), labels), "plain", dfeat=features, dW=class_weights)
    for kind in ("arcface", "cosface"):
        unscaled = margin_logits(features, class_weights, labels, kind, scale=1.0, margin=0.0)
        assert_close(unscaled, case["margin.cosine"], 1e-5)
        logits = margin_logits(features, class_weights, labels, kind, scale=scale, margin=margin)
        assert_close(logits, case[f"margin.{kind}.logits"], 1e-4)
        check(F.cross_entropy(logits, labels), f"margin.{kind}", dfeat=features, dW=class_weights)

    for prefix in sorted({name.rpartition(".")[0] for name in case if name.startswith("triplet.") and "loss" in name}):
        _, distance, mining, margin_text = prefix.split(".", 3)
        sub, dense = given("triplet.sub").requires_grad_(), given("triplet.dense").requires_grad_()
        loss = asymmetric_triplet_loss(
            sub,
            dense,
            given("triplet.labels"),
            margin=float(margin_text.removeprefix("m")),
            distance={"cos": "cosine", "euc": "euclidean"}[distance],
            mining=mining,
        )
        check(loss, prefix, dsub=sub, ddense=dense)

    new, old, labels = (
        given("supcon.feat").requires_grad_(),
        F.normalize(given("triplet.dense")),
        given("supcon.labels"),
    )
    supervised = losses.SupConLoss(
        temperature=0.07, distance=distances.DotProductSimilarity(normalize_embeddings=False)
    )
    check(supervised(new, labels), "supcon", dfeat=new)
    pairs = losses.ContrastiveLoss(pos_margin=1, neg_margin=0.5, distance=distances.CosineSimilarity())
    check(pairs(new, labels), "contrastive", dfeat=new)
    check(compatible_contrast(new, old, labels), "refresh.contra", dfeat=new)
    check(compatible_contrast(new, old, labels, temperature=0.05, against_new=True), "refresh.contra_ract", dfeat=new)
    check(F.mse_loss(new, old), "refresh.l2", dfeat=new)

    logits = given("evidential.logits").requires_grad_()
    regularisation = float(case["evidential.lambda"])
    by_width = [evidential_loss(view, given("evidential.labels"), regularisation=regularisation) for view in logits]
    assert_close(torch.stack(by_width), case["evidential.losses"], 1e-5)
    (gradient,) = torch.autograd.grad(torch.stack(by_width).mean(), logits)
    assert_close(gradient, case["evidential.dlogits_of_mean"], 1e-3)


@pytest.mark.golden("prunnet_switchnet", "losses")
def test_pcgrad(case):
    gradients = torch.from_numpy(case["pcgrad.G"])
    merged = merge_sfsc([{"all": gradient.clone()} for gradient in gradients], torch.from_numpy(case["pcgrad.orders"]))
    assert_close(merged["all"], case["pcgrad.merged"], 1e-3)


@pytest.mark.golden("prunnet_switchnet", "eval")
def test_metrics_of_all_pairs_of_capacities(case):
    ks = case["ks"].tolist()
    names = [*(f"recall_at_{k}" for k in ks), "map"]
    queries, gallery = torch.from_numpy(case["query_feats"]), torch.from_numpy(case["gallery_feats"])
    for similarity, published in (("cosine", "cosine"), ("euclidean", "l2")):
        for prefix, items, relevance in (
            ("", gallery, Relevance.from_labels(case["query_labels"], case["gallery_labels"])),
            ("loo_", queries, Relevance.from_labels(case["query_labels"])),
        ):
            recall, precision = case[f"{published}.{prefix}recall"], case[f"{published}.{prefix}map"]
            for i, query in enumerate(queries):
                for j, item in enumerate(items):
                    found = retrieval_metrics(query, item, relevance, names, similarity=similarity)
                    # The official means are over all queries, in single precision.
                    share = found["queries"] / len(query)
                    found_recall = np.float32([found[f"recall_at_{k}"] * share for k in ks])
                    assert np.array_equal(found_recall, recall[i, j].astype(np.float32))
                    assert found["map"] == pytest.approx(precision[i, j], rel=1e-5)


@pytest.mark.golden("prunnet_switchnet", "eval")
def test_landmark_metrics(case):
    positives = np.split(case["landmark.gt_flat"], np.cumsum(case["landmark.gt_len"])[:-1])
    items = case["gallery_feats"].shape[1]
    relevance = Relevance.from_lists(positives, None, items)
    top = next(name for name in case if name.startswith("landmark.top"))
    for name in (name for name in case if name.startswith("landmark.map_at_")):
        metric = name.removeprefix("landmark.")
        found = np.nan_to_num(per_query_of_order(case[top], relevance, [metric])[metric])
        assert found.mean() == pytest.approx(float(case[name]), rel=1e-5)


@pytest.mark.golden("prunnet_switchnet", "eval")
def test_revisited_metrics(case):
    def lists(kind: str) -> list[np.ndarray]:
        return np.split(case[f"revisited.{kind}_flat"], np.cumsum(case[f"revisited.{kind}_len"])[:-1])

    ranks = case["revisited.ranks"]
    for letter, difficulty in (("E", "easy"), ("M", "medium"), ("H", "hard")):
        truth = revisited_truth(lists("easy"), lists("hard"), lists("junk"), difficulty)
        relevance = Relevance.from_lists(truth.positives, truth.ignored, len(ranks))
        names = ["map_trapezoid", *(f"precision_oxford_at_{k}" for k in (1, 5, 10))]
        found = per_query_of_order(ranks.T, relevance, names)
        expected = case[f"revisited.{letter}.aps"]
        np.testing.assert_allclose(found["map_trapezoid"], expected, rtol=1e-5, atol=1e-12)
        assert np.nanmean(found["map_trapezoid"]) == pytest.approx(float(case[f"revisited.{letter}.map"]), rel=1e-5)
        precisions = [np.nanmean(found[name]) for name in names[1:]]
        np.testing.assert_allclose(precisions, case[f"revisited.{letter}.mp_at_1_5_10"], rtol=1e-5)
