import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from subnetbench.harness.data import Split, TaskData, TensorImages
from subnetbench.harness.errors import UserError
from subnetbench.harness.evaluation.classification import classification_metrics
from subnetbench.harness.evaluation.protocols import search_by_text
from subnetbench.harness.evaluation.trivial import chance_recall, trivial_baseline


def split_of(images: torch.Tensor, labels: list[int], **more) -> Split:
    return Split(name="test", images=TensorImages(images), labels=np.array(labels), **more)


def data_of(task: str, test: Split) -> TaskData:
    return TaskData(
        dataset="made up",
        task=task,
        train=test,
        validation=test,
        test=test,
        image_size=None,
        mean=(0.5,),
        std=(0.5,),
        protocol="none",
        digest="0",
    )


def blank(n: int) -> torch.Tensor:
    return torch.zeros(n, 1, 4, 4, dtype=torch.uint8)


def test_classification_is_the_best_constant_answer():
    labels = [0] * 6 + [1] * 5 + [2] * 3 + [3] * 3 + [4] * 2 + [5]
    data = data_of("classification", split_of(blank(20), labels, classes=tuple("abcdefg")))
    found = trivial_baseline(data)
    assert found["top1"] == 6 / 20
    assert found["top5"] == pytest.approx(19 / 20)
    shares = torch.from_numpy(np.bincount(labels) / 20)
    constant = torch.cat([shares, torch.tensor([1e-30])]).log().float().expand(20, 7)
    assert found == pytest.approx(classification_metrics([(constant, torch.tensor(labels))]), abs=1e-6)
    few = data_of("classification", split_of(blank(3), [0, 1, 1]))
    assert trivial_baseline(few).keys() == {"top1", "loss"}


def test_retrieval_by_raw_pixels():
    random = np.random.default_rng(0)
    patterns = random.integers(40, 160, size=(3, 1, 32, 32))
    # Brightness tells nothing: it is the mean, which is subtracted.
    brightness = random.integers(-40, 40, size=(30, 1, 1, 1))
    noise = random.integers(-8, 9, size=(30, 1, 32, 32))
    labels = np.arange(30) % 3
    images = torch.from_numpy(patterns[labels] + brightness + noise).to(torch.uint8)
    found = trivial_baseline(data_of("retrieval", split_of(images, labels.tolist())))
    assert found["recall_at_1"] == found["map_at_r"] == 1
    shuffled = random.permutation(labels).tolist()
    assert trivial_baseline(data_of("retrieval", split_of(images, shuffled)))["map_at_r"] < 0.6
    gallery = split_of(images[:10], labels[:10].tolist())
    apart = data_of("retrieval", split_of(images[10:], labels[10:].tolist(), gallery=gallery))
    assert trivial_baseline(apart, ["recall_at_10", "map"]).keys() >= {"recall_at_10", "map"}
    with pytest.raises(UserError, match="k: "):
        trivial_baseline(apart, ["recall_at_11"])


@pytest.mark.parametrize(("items", "positives", "k"), [(5, 1, 2), (6, 2, 1), (6, 3, 3), (6, 4, 3), (4, 2, 4)])
def test_chance_is_the_share_of_all_orders(items, positives, k):
    hits = [min(order[:positives]) < k for order in itertools.permutations(range(items))]
    assert chance_recall(items, positives, k) == pytest.approx(np.mean(hits))


def test_text_image_chance():
    captions = (("a", "b"), ("c",), (), ("d", "e", "f"))
    data = data_of("text_image", split_of(blank(4), [0, 1, 2, 3], captions=captions))
    found = trivial_baseline(data, ks=(1, 3))
    assert found["text_to_image_recall_at_1"] == pytest.approx(1 / 4)
    assert found["image_to_text_recall_at_1"] == pytest.approx((2 / 6 + 1 / 6 + 3 / 6) / 3)
    assert found["image_to_text_recall_at_3"] == pytest.approx((1 - 4 / 20 + 3 / 6 + 1 - 1 / 20) / 3)
    assert found["first_caption_text_to_image_recall_at_3"] == pytest.approx(3 / 4)
    assert found["first_caption_image_to_text_recall_at_1"] == pytest.approx(1 / 3)


# Several images a caption, several captions an image, a caption twice at one image, an image without any.
SHARED = (("a",), ("a", "a", "b"), ("c", "b"), ("a",), (), ("d", "b"), ("e",), ("f", "g"), ("f",), ("a", "c", "e"))


@pytest.mark.parametrize("captions", [SHARED, tuple(own[:1] for own in SHARED)], ids=["several", "one an image"])
def test_text_image_chance_is_the_mean_over_random_orders(captions):
    """The metrics of a run, on embeddings that know nothing, come to what the baseline expects."""
    data = data_of("text_image", split_of(blank(10), [0] * 10, captions=captions))
    expected = trivial_baseline(data)
    assert {"text_to_image_recall_at_5", "image_to_text_recall_at_5"} <= expected.keys()
    texts, draws, total = sorted({text for own in captions for text in own}), 800, Counter()
    generator = torch.Generator().manual_seed(0)
    for _ in range(draws):
        rows = dict(zip(texts, torch.randn(len(texts), 32, generator=generator), strict=True))
        encoder = lambda asked, rows=rows: torch.stack([rows[text] for text in asked])  # noqa: E731
        total.update(search_by_text(torch.randn(10, 32, generator=generator), captions, encoder))
    assert {name: value / draws for name, value in total.items()} == pytest.approx(expected, abs=0.03)


def test_text_image_chance_leaves_out_what_does_not_fit():
    data = data_of("text_image", split_of(blank(4), [0, 1, 2, 3], captions=(("a",), ("b",), ("a",), ("c",))))
    assert {name[-1] for name in trivial_baseline(data, ks=(1, 3, 4))} == {"1", "3"}
