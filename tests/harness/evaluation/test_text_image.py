import numpy as np
import pytest
import torch

from subnetbench.harness.evaluation.text_image import TextGallery, text_image_metrics

# Image 1 has no caption, image 3 three; "c" is a caption of two images, and twice one of image 4.
CAPTIONS = (("a", "c"), (), ("b",), ("d", "e", "f"), ("c", "c"))
PROTOCOLS = ("all_captions", "merged_captions")


def recall_by_definition(scores: np.ndarray, positives: list[set[int]], k: int) -> float:
    hits = [
        bool(set(np.argsort(-row, kind="stable")[:k].tolist()) & wanted)
        for row, wanted in zip(scores, positives, strict=True)
        if wanted
    ]
    return float(np.mean(hits))


def expected_recalls(captions, rows: dict[str, np.ndarray], image: np.ndarray, protocol: str) -> dict[str, float]:
    """By sorting all similarities, from the texts that take part and the images that each is right for."""
    if protocol == "all_captions":
        texts = [(text, {i}) for i, own in enumerate(captions) for text in own]
    else:
        names = sorted({text for own in captions for text in own})
        texts = [(name, {i for i, own in enumerate(captions) if name in own}) for name in names]
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    scores = unit(np.stack([rows[text] for text, _ in texts])) @ unit(image).T
    right_texts = [{t for t, (_, images) in enumerate(texts) if i in images} for i in range(len(image))]
    found = {}
    for k in (1, 2):
        found[f"text_to_image_recall_at_{k}"] = recall_by_definition(scores, [images for _, images in texts], k)
        found[f"image_to_text_recall_at_{k}"] = recall_by_definition(scores.T, right_texts, k)
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_recall_in_both_directions(seed, protocol):
    random = np.random.default_rng(seed)
    image = random.standard_normal((5, 3))
    rows = {text: random.standard_normal(3) for text in "abcdef"}
    firsts = [own[:1] for own in CAPTIONS]
    expected = expected_recalls(CAPTIONS, rows, image, protocol)
    first = expected_recalls(firsts, rows, image, protocol)
    expected |= {f"first_caption_{name}": value for name, value in first.items()}

    def encoder(texts):
        return torch.from_numpy(np.stack([rows[text] for text in texts]))

    found = text_image_metrics(torch.from_numpy(image), CAPTIONS, encoder, protocol=protocol, ks=(1, 2))
    assert found == pytest.approx(expected)


def test_equal_captions_are_separate_texts_unless_merged():
    separate, merged = (TextGallery.of(CAPTIONS, protocol) for protocol in PROTOCOLS)
    assert separate.texts == ("a", "c", "b", "d", "e", "f", "c", "c")
    assert separate.images_of_text() == [[0], [0], [2], [3], [3], [3], [4], [4]]
    assert merged.texts == ("a", "b", "c", "d", "e", "f")
    assert merged.images_of_text() == [[0], [2], [0, 4], [3], [3], [3]]
    assert [own.tolist() for own in merged.texts_of_image] == [[0, 2], [], [1], [3, 4, 5], [2]]


def test_one_caption_an_image_is_scored_once():
    found = text_image_metrics(torch.eye(3), (("a",), ("b",), ("c",)), lambda texts: torch.eye(3)[: len(texts)])
    assert found == {"text_to_image_recall_at_1": 1.0, "image_to_text_recall_at_1": 1.0}
