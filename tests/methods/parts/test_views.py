import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from subnetbench.harness.data.images import Images, TensorImages
from subnetbench.harness.data.preprocessing import Preprocessing
from subnetbench.methods.parts.views.drawing import CROPS_AND_FLIPS, ViewDraws, ViewOptions, coupled_views, draw_views
from subnetbench.methods.parts.views.rendering import ViewParameters, crop_and_resize, jitter_colours, render_views

OCCASION = {"seed": 3, "counters": ("distil", 7)}
ROLES = {
    "student": Preprocessing(16, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
    "teacher": Preprocessing(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


class Decoded(Images):
    """Images that are not in one tensor; it counts how often each is read."""

    def __init__(self, pixels: list[Tensor]) -> None:
        self.pixels = pixels
        self.channels = pixels[0].shape[0]
        self.reads: list[int] = []

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, indices: np.ndarray) -> list[Tensor]:
        self.reads.extend(indices.tolist())
        return [self.pixels[i] for i in indices]

    def subset(self, indices: np.ndarray) -> "Decoded":
        return Decoded([self.pixels[i] for i in indices])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def draw(options: ViewOptions, indices: list[int], views: int = 3, split_size: int = 10, **occasion) -> ViewDraws:
    return draw_views(options, np.array(indices), views, split_size, **(occasion or OCCASION))


@given(height=st.integers(1, 400), width=st.integers(1, 400), image=st.integers(0, 10**6), low=st.floats(0.05, 1.0))
def test_crops_lie_within_the_image_and_have_the_area_and_aspect_asked_for(height, width, image, low):
    options = ViewOptions(area=(low, 1.0))
    draws = draw(options, [image], views=20)
    top, left, tall, wide = draws.parameters(np.full(20, height), np.full(20, width)).boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (tall >= 1).all()
    assert (wide >= 1).all()
    assert (top + tall <= height).all()
    assert (left + wide <= width).all()
    if 0.8 < width / height < 1.25 and min(height, width) > 50:
        # Half a pixel of rounding on either side.
        assert ((tall + 0.5) * (wide + 0.5) >= 0.75 * low * height * width).all()
        assert ((wide + 0.5) / (tall - 0.5) >= 3 / 4).all()
        assert ((wide - 0.5) / (tall + 0.5) <= 4 / 3).all()


def test_draws_have_the_distributions_of_the_published_views():
    views = 4000
    draws = draw(ViewOptions(), [5], views=views, split_size=7)
    boxes = draws.parameters(np.full(views, 300), np.full(views, 400)).boxes
    torch.manual_seed(0)
    canvas = torch.empty(3, 300, 400)
    published = [RandomResizedCrop.get_params(canvas, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(views)]
    for mine, theirs in zip(boxes.T, np.array(published).T, strict=True):
        deciles = np.linspace(0.1, 0.9, 9)
        np.testing.assert_allclose(np.quantile(mine, deciles), np.quantile(theirs, deciles), atol=12)
    assert draws.flips.mean() == pytest.approx(0.5, abs=0.03)
    assert (draws.factors.min(axis=0) >= [0.6, 0.6, 0.6, -0.1]).all()
    assert (draws.factors.max(axis=0) <= [1.4, 1.4, 1.4, 0.1]).all()
    np.testing.assert_allclose(draws.factors.mean(axis=0), [1, 1, 1, 0], atol=0.02)
    assert len({tuple(order) for order in draws.orders}) == 24
    assert sorted(set(draws.partners)) == list(range(7))
    assert draws.mix.mean() == pytest.approx(0.5, abs=0.03)
    assert draws.mix.var() == pytest.approx(0.25 / 1.4, abs=0.01), "the variance of Beta(0.2, 0.2)"


def test_a_view_belongs_to_its_image_and_not_to_its_batch():
    together, alone = draw(ViewOptions(), [4, 9, 2]), draw(ViewOptions(), [2])
    for name in ("crop", "flips", "orders", "factors", "partners", "mix"):
        np.testing.assert_array_equal(getattr(together, name)[6:], getattr(alone, name))
    for occasion in ({"seed": 4, "counters": ("distil", 7)}, {"seed": 3, "counters": ("distil", 8)}):
        assert not np.isclose(draw(ViewOptions(), [2], **occasion).crop, alone.crop).any()
    fewer = draw(ViewOptions(), [2], views=2)
    np.testing.assert_array_equal(fewer.crop, alone.crop[:2])


@pytest.mark.parametrize("size", [8, 24, 50])
def test_crops_are_torchvisions(size):
    pixels = noise(6, 3, 40, 52)
    draws = draw(ViewOptions(), list(range(6)), views=1)
    parameters = draws.parameters(np.full(6, 40), np.full(6, 52))
    rendered = crop_and_resize(pixels, parameters.boxes, parameters.flips, size)
    for i in range(6):
        expected = F.resized_crop(pixels[i] / 255, *parameters.boxes[i].tolist(), [size, size], antialias=True)
        expected = F.horizontal_flip(expected) if parameters.flips[i] else expected
        torch.testing.assert_close(rendered[i], expected, atol=1e-5, rtol=0)


def test_the_whole_image_at_its_own_size_stays_as_it_is():
    pixels = noise(2, 3, 12, 12)
    whole = np.array([[0, 0, 12, 12]] * 2)
    rendered = crop_and_resize(pixels, whole, np.array([False, True]), 12)
    torch.testing.assert_close(rendered[0], pixels[0] / 255)
    torch.testing.assert_close(rendered[1], pixels[1].flip(2) / 255)


def test_colours_are_torchvisions():
    views = noise(40, 3, 9, 7) / 255
    draws = draw(ViewOptions(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.5), list(range(40)), views=1)
    jittered = jitter_colours(views, draws.orders, draws.factors)
    adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for i in range(40):
        expected = views[i]
        for jitter in draws.orders[i]:
            expected = adjust[jitter](expected, float(draws.factors[i, jitter]))
        torch.testing.assert_close(jittered[i], expected, atol=1e-4, rtol=0)


def test_grey_images():
    views = noise(5, 1, 8, 8) / 255
    draws = draw(ViewOptions(), list(range(5)), views=1)
    jittered = jitter_colours(views, draws.orders, draws.factors)
    in_colour = jitter_colours(views.expand(-1, 3, -1, -1), draws.orders, draws.factors)
    torch.testing.assert_close(jittered.expand(-1, 3, -1, -1), in_colour, atol=1e-3, rtol=0)


def test_views_of_all_sizes_show_the_same():
    smooth = torch.nn.functional.interpolate(noise(4, 3, 4, 4).float(), size=(96, 96), mode="bicubic").clamp(0, 255)
    images = TensorImages(smooth.to(torch.uint8))
    indices = np.arange(4)
    plain = {role: Preprocessing(size, (0.0,) * 3, (1.0,) * 3) for role, size in (("small", 24), ("large", 48))}
    views = coupled_views(images, indices, draw(ViewOptions(), [0, 1, 2, 3], split_size=4), plain)
    shrunk = torch.nn.functional.avg_pool2d(views["large"].flatten(0, 1), 2)
    coupled = (shrunk - views["small"].flatten(0, 1)).abs().mean()
    other = (shrunk - views["small"].flatten(0, 1).roll(1, 0)).abs().mean()
    assert coupled < 0.01 < 10 * coupled < other


def test_mixing_with_the_same_view_of_the_partner():
    images = TensorImages(noise(10, 3, 30, 30))
    draws = draw(ViewOptions(), [1, 8])
    views = coupled_views(images, np.array([1, 8]), draws, ROLES)
    parameters = draws.parameters(np.full(6, 30), np.full(6, 30))
    for role, preprocessing in ROLES.items():
        assert views[role].shape == (2, 3, 3, preprocessing.size, preprocessing.size)
        own = render_views(images.tensor[[1, 1, 1, 8, 8, 8]], parameters, preprocessing.size)
        partner = render_views(images.tensor[draws.partners], parameters, preprocessing.size)
        weight = torch.tensor(draws.mix).view(-1, 1, 1, 1)
        pixels = weight * own + (1 - weight) * partner
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
        expected = ((pixels - mean) / std).unflatten(0, (2, 3)).float()
        torch.testing.assert_close(views[role], expected, atol=1e-5, rtol=1e-5)


def test_decoded_images_give_the_same_views_as_those_in_memory():
    pixels = noise(10, 3, 30, 40)
    draws = draw(ViewOptions(), [1, 8])
    in_memory = coupled_views(TensorImages(pixels), np.array([1, 8]), draws, ROLES)
    decoded = coupled_views(Decoded(list(pixels)), np.array([1, 8]), draws, ROLES)
    for role in ROLES:
        torch.testing.assert_close(decoded[role], in_memory[role])


def test_images_of_different_sizes_and_partners_from_the_batch():
    images = Decoded([noise(3, 20 + 3 * i, 50 - 4 * i, seed=i) for i in range(10)])
    draws = draw(ViewOptions(partners="batch"), [1, 8], views=6)
    assert set(draws.partners) == {1, 8}
    views = coupled_views(images, np.array([1, 8]), draws, ROLES)
    assert views["teacher"].shape == (2, 6, 3, 32, 32)
    assert views["teacher"].isfinite().all()
    assert set(images.reads) == {1, 8}


def test_crops_and_flips_alone_leave_colours_and_partners_out():
    draws = draw(CROPS_AND_FLIPS, [0, 1])
    assert draws.partners is None
    parameters = draws.parameters(np.full(6, 20), np.full(6, 20))
    assert parameters.orders is None
    constant = torch.full((2, 3, 20, 20), 51, dtype=torch.uint8)
    views = coupled_views(TensorImages(constant), np.array([0, 1]), draws, {"teacher": ROLES["teacher"]})
    torch.testing.assert_close(views["teacher"], torch.full((2, 3, 3, 32, 32), 0.2))


def test_a_slice_of_parameters():
    parameters = ViewParameters(np.arange(12).reshape(3, 4), np.array([True, False, True]))
    assert parameters[1:2].boxes.tolist() == [[4, 5, 6, 7]]
    assert parameters[1:2].flips.tolist() == [False]
    assert parameters[1:2].orders is None


@given(height=st.integers(1, 300), width=st.integers(1, 300), share=st.floats(0.3, 1.0))
def test_square_crops_are_as_large_as_the_shorter_side_allows(height, width, share):
    draws = draw(ViewOptions(square=share), [5], views=20)
    top, left, tall, wide = draws.parameters(np.full(20, height), np.full(20, width)).boxes.T
    side = max(round(share * min(height, width)), 1)
    assert (tall == side).all()
    assert (wide == side).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + side <= height).all()
    assert (left + side <= width).all()


def test_square_crops_reach_every_place():
    draws = draw(ViewOptions(square=1.0), list(range(200)), views=1)
    boxes = draws.parameters(np.full(200, 10), np.full(200, 14)).boxes
    assert set(boxes[:, 0]) == {0}
    assert set(boxes[:, 1]) == set(range(5))
