"""The values by item of each task: their means are the metrics, and clusters are what other test items would differ in."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from subnetbench.harness.data.images import TensorImages
from subnetbench.harness.data.splits import GroundTruth, Split
from subnetbench.harness.evaluation.classification import classification_outcomes
from subnetbench.harness.evaluation.items import SplitItems, image_items
from subnetbench.harness.evaluation.retrieval import split_outcomes
from subnetbench.harness.evaluation.text_image import text_image_outcomes

WORDS = ("red", "dot", "cat")


def split_of(labels, **changes) -> Split:
    labels = np.asarray(labels, np.int64)
    images = TensorImages(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8))
    return Split(name="test", images=images, labels=labels, **changes)


def assert_means(metrics, values, without=()):
    """Each metric but `without` is the mean of its items."""
    assert set(metrics) - set(values) == set(without)
    for name, of_items in values.items():
        assert of_items.mean == pytest.approx(metrics[name], abs=1e-6), name


@pytest.mark.parametrize("seed", range(3))
def test_classification(seed):
    generator = torch.Generator().manual_seed(seed)
    split = split_of(torch.randint(7, (50,), generator=generator).numpy())
    logits = torch.randn(50, 7, generator=generator)
    metrics, right = classification_outcomes([(logits, torch.from_numpy(split.labels))])
    assert_means(metrics, SplitItems(split, "classification").values(right), without=["loss"])
    assert right["top1"].tolist() == (logits.argmax(1).numpy() == split.labels).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_retrieval_with_queries_that_find_nothing(seed):
    generator = torch.Generator().manual_seed(seed)
    split = split_of([0, 0, 0, 1, 1, 2])  # the last is alone in its class
    rows = torch.randn(6, 4, generator=generator)
    metrics, by_query = split_outcomes(rows, rows, split, ["recall_at_1", "map", "map_at_r", "r_precision"])
    values = SplitItems(split, "retrieval").values(by_query)
    assert_means(metrics, values, without=["queries", "queries_without_positives"])
    assert np.isnan(values["map"].value).tolist() == [False] * 5 + [True]
    assert values["map"].of.kind == "query"


def test_retrieval_in_several_settings():
    gallery = split_of([0, 0, 0])
    truth = {
        "": GroundTruth((np.array([0, 1]), np.array([2])), (np.array([]), np.array([]))),
        "hard_": GroundTruth((np.array([1]), np.array([], np.int64)), (np.array([0]), np.array([2]))),
    }
    split = split_of([0, 0], gallery=gallery, ground_truth=truth, metrics=("map",))
    rows = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    metrics, by_query = split_outcomes(rows[:2], rows, split)
    values = SplitItems(split, "retrieval").values(by_query)
    assert set(values) == {"map", "hard_map"}
    assert_means({name: metrics[name] for name in values}, values)


@pytest.mark.parametrize("protocol", ["all_captions", "merged_captions"])
def test_text_and_image(protocol):
    captions = (("red", "dot"), (), ("cat",), ("dot",))
    split = split_of([0, 1, 1, 0], captions=captions, caption_protocol=protocol)
    generator = torch.Generator().manual_seed(1)
    images, texts = torch.randn(4, 5, generator=generator), torch.randn(3, 5, generator=generator)
    metrics, by_query = text_image_outcomes(
        images, captions, lambda names: texts[[WORDS.index(name) for name in names]], protocol=protocol, ks=(1, 2)
    )
    values = SplitItems(split, "text_image").values(by_query)
    assert_means(metrics, values)
    assert {name.replace("first_caption_", "").split("_recall")[0] for name in values} == {
        "text_to_image",
        "image_to_text",
    }
    of_captions = values["text_to_image_recall_at_1"].of
    assert of_captions.kind == "caption"
    # Sorted captions (cat, dot, red), or as they stand; each has the class of its first image.
    assert of_captions.label.tolist() == ([1, 0, 0] if protocol == "merged_captions" else [0, 0, 1, 0])
    assert values["image_to_text_recall_at_1"].of.kind == "image"


def test_clusters():
    labels = [0, 0, 1, 1]
    assert image_items(split_of(labels), "classification").cluster.tolist() == [0, 1, 2, 3]
    assert image_items(split_of(labels), "retrieval").cluster.tolist() == labels
    assert image_items(split_of(labels), "text_image").cluster.tolist() == labels
    assert image_items(split_of([0, 0, 0]), "text_image").cluster.tolist() == [0, 1, 2]
    stated = split_of(labels, clusters=np.array([5, 5, 5, 7]))
    assert image_items(stated, "classification").cluster.tolist() == [5, 5, 5, 7]
    assert image_items(stated.subset(np.array([3, 0])), "classification").cluster.tolist() == [7, 5]
    with pytest.raises(ValueError, match="3 numbers of clusters"):
        replace(stated, clusters=np.zeros(3))
