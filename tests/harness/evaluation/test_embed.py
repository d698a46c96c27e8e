import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from subnetbench.harness.data.images import ImageFiles, TensorImages
from subnetbench.harness.data.preprocessing import Preprocessing
from subnetbench.harness.evaluation.outputs import embed, outputs

PREPROCESSING = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.25,) * 3)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 5)
    module = nn.Sequential(*layers)
    module(torch.randn(16, 3, 8, 8))  # running statistics that differ from any batch's
    return module.eval()


def pixels(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_outputs_do_not_depend_on_the_batch():
    module, images = network(), TensorImages(pixels(11))
    whole = embed(module, images, PREPROCESSING, batch_size=64)
    assert whole.shape == (11, 5)
    assert whole.dtype == torch.float32
    for batch_size in (1, 4, 11):
        torch.testing.assert_close(embed(module, images, PREPROCESSING, batch_size=batch_size), whole)
    parts = list(outputs(module, images, PREPROCESSING, batch_size=4))
    assert [len(part) for part in parts] == [4, 4, 3]
    expected = module(PREPROCESSING(images, np.arange(11)))
    torch.testing.assert_close(torch.cat(parts), expected)
    parts[0] += 1  # callers may write into what they get
    assert not parts[0].requires_grad


def test_files_are_read_in_order(tmp_path):
    tensor = pixels(9)
    paths = []
    for i, image in enumerate(tensor):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[-1])
    module = network()
    found = embed(module, ImageFiles(paths), PREPROCESSING, batch_size=2)
    torch.testing.assert_close(found, embed(module, TensorImages(tensor), PREPROCESSING))


def test_training_mode_and_no_images_are_refused():
    module = network()
    module[3].train()
    with pytest.raises(ValueError, match="evaluation mode, but these are not: 3"):
        embed(module, TensorImages(pixels(2)), PREPROCESSING)
    with pytest.raises(ValueError, match="no images"):
        embed(network(), TensorImages(pixels(2)[:0]), PREPROCESSING)
