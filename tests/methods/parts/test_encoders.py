"""Image and text encoders: preprocessing, prompts, truncation, identities, independence of the batch."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from published.cascades import bi_encoder_level
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.data.images import TensorImages
from subnetbench.methods.parts.text_image.cascade import Cascade
from subnetbench.methods.parts.text_image.clip_student import clip_student
from subnetbench.methods.parts.text_image.encoders import (
    PROMPT,
    PUBLISHED_PROMPT,
    ClipPreprocessing,
    ImageEncoder,
    TextEncoder,
    cut_to_context,
    fill_prompt,
    pad,
    weights_digest,
)


def letters(texts: list[str]) -> list[list[int]]:
    return [[1, *(ord(letter) for letter in text), 2] for text in texts]


class CausalTower(nn.Module):
    """Reads its last end token, which has seen all tokens before it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(200, 6)

    def forward(self, ids: Tensor) -> Tensor:
        sums = (self.embedding(ids) * torch.arange(1, ids.shape[1] + 1)[:, None]).cumsum(dim=1)
        return sums[torch.arange(len(ids)), (ids == 2).int().argmax(dim=1)]


def text_encoder(**changes: object) -> TextEncoder:
    options = {"context": 30, "pad_token": 2, "digest": "tower", **changes}
    return TextEncoder("letters", CausalTower(), letters, **options)


def image_encoder(seed: int = 0, **changes: object) -> ImageEncoder:
    torch.manual_seed(seed)
    tower = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6))
    return ImageEncoder("small", tower, ClipPreprocessing(size=16), **changes)


def test_prompts():
    assert fill_prompt(PROMPT, "A man") == "a photo of A man"
    assert fill_prompt(PUBLISHED_PROMPT, "A man") == "a photo ofA man"
    assert fill_prompt("{}", "{} {0.x}") == "{} {0.x}"
    for template in ("no gap", "{} and {}"):
        with pytest.raises(UserError, match="template"):
            fill_prompt(template, "x")
        with pytest.raises(UserError, match="template"):
            text_encoder(template=template)


def test_long_texts_keep_their_end_token():
    assert cut_to_context([1, 5, 6, 7, 2], 4) == [1, 5, 6, 2]
    assert cut_to_context([1, 5, 2], 3) == [1, 5, 2]
    encoder = text_encoder(template="{}")
    torch.testing.assert_close(encoder.embed(["x" * 28]), encoder.embed(["x" * 99]))
    assert not torch.equal(encoder.embed(["x" * 27]), encoder.embed(["x" * 28]))


def test_padding_changes_nothing():
    texts = ["a", "a longer text", ""]
    assert pad([[1, 2], [1, 9, 2]], 0).tolist() == [[1, 2, 0], [1, 9, 2]]
    assert pad([[1, 2]], 7, 4).tolist() == [[1, 2, 7, 7]]
    together = text_encoder().embed(texts)
    torch.testing.assert_close(torch.cat([text_encoder().embed([text]) for text in texts]), together)
    torch.testing.assert_close(text_encoder(pad_fully=True).embed(texts), together)


def test_text_identities_name_all_that_matters():
    identities = [
        text_encoder(**changes).identity
        for changes in ({}, {"template": PUBLISHED_PROMPT}, {"digest": "other"}, {"context": 29}, {"pad_token": 0})
    ]
    assert len(set(identities)) == len(identities)
    assert text_encoder().identity == identities[0]


def test_image_identities_name_all_that_matters():
    first = image_encoder()
    changed = image_encoder()
    next(changed.tower.parameters()).data[0, 0, 0, 0] += 1e-6
    others = [
        image_encoder(seed=1),
        image_encoder(dtype=torch.bfloat16),
        changed,
        ImageEncoder("small", image_encoder().tower, ClipPreprocessing(size=17)),
        ImageEncoder("small", nn.Sequential(*image_encoder().tower, nn.ReLU()), ClipPreprocessing(size=16)),
    ]
    identities = {encoder.identity for encoder in others}
    assert len(identities) == len(others)
    assert first.identity not in identities
    assert image_encoder().identity == first.identity


def test_statistics_of_batch_norm_are_part_of_the_weights():
    first, second = image_encoder().tower, image_encoder().tower
    assert weights_digest(first) == weights_digest(second)
    second[1].running_mean += 1
    assert weights_digest(first) != weights_digest(second)
    assert weights_digest(first, ["0."]) == weights_digest(second, ["0."])


@pytest.mark.parametrize(
    "make",
    [
        image_encoder,
        lambda: ImageEncoder("student", clip_student("mobilenet_v3_small", image_size=32), ClipPreprocessing(size=32)),
    ],
)
def test_an_embedding_does_not_depend_on_the_batch(make):
    encoder = make()
    encoder.tower.train()
    encoder = ImageEncoder("again", encoder.tower, encoder.preprocessing)
    size = encoder.preprocessing.size
    images = TensorImages(torch.randint(0, 256, (9, 3, size, size), dtype=torch.uint8))
    whole = encoder.embed_images(images, np.arange(9))
    backwards = encoder.embed_images(images, np.arange(9)[::-1].copy()).flip(0)
    single = torch.cat([encoder.embed_images(images, np.array([i])) for i in range(9)])
    torch.testing.assert_close(backwards, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(single, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(40, 56), (33, 48), (47, 32), (32, 32), (5, 7)])
def test_preprocessing_is_that_of_pillow(shape):
    from PIL import Image

    picture = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    found = ClipPreprocessing(size=32).resized(TensorImages(picture[None]), np.array([0]))[0]
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    width, height = (int(32 * length / min(image.size)) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    top, left = (height - 32) // 2, (width - 32) // 2
    wanted = torch.from_numpy(np.array(image)).permute(2, 0, 1)[:, top : top + 32, left : left + 32]
    assert torch.equal(found, wanted)


def test_grey_images_are_seen_as_colour():
    grey = torch.randint(0, 256, (2, 1, 20, 30), dtype=torch.uint8)
    preprocessing = ClipPreprocessing(size=16)
    colour = preprocessing(TensorImages(grey.expand(-1, 3, -1, -1)), np.arange(2))
    assert torch.equal(preprocessing(TensorImages(grey), np.arange(2)), colour)


def test_a_bi_encoder_is_a_level_of_a_cascade():
    images = TensorImages(torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8))
    cheap, expensive, texts = image_encoder(0), image_encoder(1), text_encoder()
    cascade = Cascade([bi_encoder_level(encoder, texts, images) for encoder in (cheap, expensive)], 12)
    cascade.build()
    answers = cascade.search(["a cat", "a dog"], k=3, m=[12])
    scores = nn.functional.cosine_similarity(
        texts.embed(["a cat", "a dog"])[:, None], expensive.embed_images(images, np.arange(12))[None], dim=2
    )
    assert (answers.ranking == scores.argsort(dim=1, descending=True)[:, :3].numpy()).all()
    assert answers.text_encodes.tolist() == [[1, 0], [1, 0]]
