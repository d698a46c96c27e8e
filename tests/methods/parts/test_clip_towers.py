"""CLIP models from local folders, by transformers and by open_clip."""

import json
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from subnetbench.harness.core.errors import DataError, UserError
from subnetbench.harness.data.images import TensorImages
from subnetbench.methods.parts.text_image.clip_towers import load_open_clip, load_transformers_clip
from subnetbench.methods.parts.text_image.encoders import CLIP_MEAN, CLIP_STD, PROMPT, PUBLISHED_PROMPT
from subnetbench.methods.parts.vit.model import PlainViT

TEXTS = ["a black cat", "An elderly woman, wearing a hat, sits on a bench", "word " * 200, ""]
IMAGES = TensorImages(torch.randint(0, 256, (3, 3, 40, 50), dtype=torch.uint8))
MODEL = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    "quick_gelu": True,
}


def save_transformers(folder: Path) -> CLIPModel:
    bytes_pairs = open_clip.SimpleTokenizer()
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {names.get(word, word): number for word, number in bytes_pairs.encoder.items()}
    CLIPTokenizer(vocab=vocabulary, merges=list(bytes_pairs.bpe_ranks)).save_pretrained(folder)
    tower = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    tokens = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config={**tower, **tokens},
            vision_config={**tower, "image_size": 32, "patch_size": 8},
            projection_dim=12,
        )
    ).eval()
    model.save_pretrained(folder)
    return model


def save_open_clip(folder: Path) -> open_clip.CLIP:
    torch.manual_seed(0)
    model = open_clip.CLIP(**MODEL).eval()
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    view = {"size": 32, "mean": CLIP_MEAN, "std": CLIP_STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL, "preprocess_cfg": view}))
    return model


@pytest.mark.parametrize(
    ("save", "load"), [(save_transformers, load_transformers_clip), (save_open_clip, load_open_clip)]
)
def test_folders_are_read(tmp_path, save, load):
    model = save(tmp_path)
    clip = load(tmp_path)
    assert isinstance(clip.image.tower, PlainViT)
    assert clip.image.preprocessing.size == 32
    assert clip.logit_scale == pytest.approx(model.logit_scale.item())
    assert clip.image.embed_images(IMAGES, np.arange(3)).shape == (3, 12)
    together = clip.text.embed(TEXTS)
    one_by_one = torch.cat([clip.text.embed([text]) for text in TEXTS])
    torch.testing.assert_close(one_by_one, together, atol=2e-5, rtol=0)
    torch.testing.assert_close(clip.text.embed(["word " * 300]), clip.text.embed(["word " * 200]))
    again, other = load(tmp_path), load(tmp_path, template=PUBLISHED_PROMPT)
    assert (again.image.identity, again.text.identity) == (clip.image.identity, clip.text.identity)
    assert other.image.identity == clip.image.identity
    assert other.text.identity != clip.text.identity


def test_transformers_texts_are_those_of_the_library(tmp_path):
    model = save_transformers(tmp_path)
    tokeniser = CLIPTokenizer.from_pretrained(tmp_path)
    prompts = [PROMPT.replace("{}", text) for text in TEXTS]
    batch = tokeniser(prompts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        wanted = model.get_text_features(**batch).pooler_output
    torch.testing.assert_close(load_transformers_clip(tmp_path).text.embed(TEXTS), wanted, atol=2e-5, rtol=0)


def test_open_clip_embeddings_are_those_of_the_library(tmp_path):
    model = save_open_clip(tmp_path)
    clip, pixels = load_open_clip(tmp_path), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        ids = open_clip.SimpleTokenizer()([PROMPT.replace("{}", text) for text in TEXTS])
        torch.testing.assert_close(clip.text.embed(TEXTS), model.encode_text(ids), atol=2e-5, rtol=0)
        torch.testing.assert_close(clip.image.embed(pixels), model.encode_image(pixels), atol=2e-5, rtol=1e-4)


def test_towers_that_are_no_plain_vit_are_used_as_they_are(tmp_path):
    layers = {"layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "image_size": 64}
    torch.manual_seed(0)
    model = open_clip.CLIP(**{**MODEL, "vision_cfg": layers}).eval()
    torch.save(model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    config = {"model_cfg": {**MODEL, "vision_cfg": layers}, "preprocess_cfg": {"size": 64}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    clip, pixels = load_open_clip(tmp_path), torch.randn(2, 3, 64, 64)
    assert not isinstance(clip.image.tower, PlainViT)
    with torch.no_grad():
        torch.testing.assert_close(clip.image.embed(pixels), model.encode_image(pixels))


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match=r"config\.json"):
        load_transformers_clip(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="transformers"):
        load_transformers_clip(tmp_path)
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="open_clip"):
            load_open_clip(path)
    save_open_clip(tmp_path)
    weights = tmp_path / "open_clip_pytorch_model.bin"
    with pytest.raises(UserError, match="architecture"):
        load_open_clip(weights)
    with pytest.raises(DataError, match="open_clip"):
        load_open_clip(weights, "ViT-S-32-alt")


def test_pickled_code_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    save_open_clip(tmp_path)
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps({"x": Bomb()}, protocol=2))
    with pytest.raises(DataError):
        load_open_clip(tmp_path)
    assert not (tmp_path / "ran").exists()
