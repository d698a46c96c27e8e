import numpy as np
import pytest
import torch

from subnetbench.harness.errors import UserError
from subnetbench.harness.evaluation.text_image import text_image_metrics

# Image 2 has one caption, image 1 has none; captions of image 0 are not contiguous.
IMAGE_OF_TEXT = np.array([0, 3, 2, 0, 3, 3])


def recall_by_definition(scores: np.ndarray, positives: list[set[int]], k: int) -> float:
    hits = [
        bool(set(np.argsort(-row, kind="stable")[:k].tolist()) & wanted)
        for row, wanted in zip(scores, positives, strict=True)
        if wanted
    ]
    return float(np.mean(hits))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("protocol", ["all_captions", "first_caption"])
def test_recall_in_both_directions(seed, protocol):
    random = np.random.default_rng(seed)
    text, image = random.standard_normal((6, 3)), random.standard_normal((4, 3))
    used = np.arange(6) if protocol == "all_captions" else np.array([0, 2, 1])
    of_text = IMAGE_OF_TEXT[used]
    unit_text, unit_image = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (text[used], image))
    scores = unit_text @ unit_image.T
    prefix = "" if protocol == "all_captions" else "first_caption_"
    expected = {}
    for k in (1, 2):
        to_image = recall_by_definition(scores, [{int(i)} for i in of_text], k)
        to_text = recall_by_definition(scores.T, [set(np.flatnonzero(of_text == i).tolist()) for i in range(4)], k)
        expected |= {f"{prefix}text_to_image_recall_at_{k}": to_image, f"{prefix}image_to_text_recall_at_{k}": to_text}
    tensors = torch.from_numpy(text), torch.from_numpy(image)
    assert text_image_metrics(*tensors, IMAGE_OF_TEXT, (1, 2), protocol=protocol) == pytest.approx(expected)


def test_unusable_input_is_refused():
    text, image = torch.randn(6, 3), torch.randn(4, 3)
    with pytest.raises(UserError, match=r"protocol.*'five'.*all_captions, first_caption"):
        text_image_metrics(text, image, IMAGE_OF_TEXT, protocol="five")
    with pytest.raises(UserError, match=r"k: .*got 5.*1 to 4"):
        text_image_metrics(text, image, IMAGE_OF_TEXT, (5,))
