"""The coupled views of the published RAML code, draw for draw: PIL images and generators seeded by view.

Slow, and here for parity; `methods.parts.views` is what trains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import ColorJitter, InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as F

from subnetbench.harness.method import Preprocessing
from subnetbench.methods.parts.views.drawing import ViewOptions
from subnetbench.methods.parts.views.rendering import ViewParameters

JITTERS = ("brightness", "contrast", "saturation", "hue")
_ADJUST = dict(zip(JITTERS, (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue), strict=True))


@dataclass(frozen=True)
class PaperView:
    """One view: its seed, the partner it is mixed with, the weight of the own image, and the views by role.

    `parameters` is what the own image gets (one row); `pixels` are normalised (channels, size, size).
    """

    seed: int
    partner: int
    mix: float
    parameters: ViewParameters
    pixels: dict[str, Tensor]


def paper_views(
    images: Sequence[np.ndarray],
    index: int,
    views: int,
    roles: Mapping[str, Preprocessing],
    generator: np.random.RandomState,
    options: ViewOptions | None = None,
) -> list[PaperView]:
    """The views of image `index` of a list of uint8 (height, width, 3) images.

    The first seed comes from `generator`, every further one from the generator that the view before it seeded, so
    one number fixes the whole item. `generator` is left as the item leaves the global one.
    """
    options = options or ViewOptions()
    item = []
    for _ in range(views):
        seed = int(generator.randint(2**31 - 1))
        generator.seed(seed)
        partner = int(generator.randint(len(images)))
        generator.seed(seed)
        mix = float(generator.beta(options.mixup_alpha, options.mixup_alpha))
        own, other = (Image.fromarray(images[i]) for i in (index, partner))
        parameters = paper_parameters(seed, own, options)
        partner_parameters = paper_parameters(seed, other, options)
        pixels = {
            role: mix * _render(own, parameters, preprocessing)
            + (1 - mix) * _render(other, partner_parameters, preprocessing)
            for role, preprocessing in roles.items()
        }
        item.append(PaperView(seed, partner, mix, parameters, pixels))
    return item


def paper_parameters(seed: int, image: Image.Image, options: ViewOptions) -> ViewParameters:
    """What torchvision's transforms draw for one image (one row) from torch's generator after seeding it."""
    jitter = ColorJitter(options.brightness, options.contrast, options.saturation, options.hue)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        box = RandomResizedCrop.get_params(image, list(options.area), list(options.aspect))
        flip = bool(torch.rand(1) < options.flip)
        order, *factors = ColorJitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    neutral = (1.0, 1.0, 1.0, 0.0)
    strengths = [none if factor is None else factor for factor, none in zip(factors, neutral, strict=True)]
    return ViewParameters(np.array([box]), np.array([flip]), order.numpy()[None], np.array([strengths]))


def _render(image: Image.Image, parameters: ViewParameters, preprocessing: Preprocessing) -> Tensor:
    size = [preprocessing.size, preprocessing.size]
    view = F.resized_crop(image, *parameters.boxes[0].tolist(), size, InterpolationMode.BILINEAR)
    if parameters.flips[0]:
        view = F.hflip(view)
    if parameters.orders is not None and parameters.factors is not None:
        for jitter in parameters.orders[0]:
            view = _ADJUST[JITTERS[jitter]](view, float(parameters.factors[0, jitter]))
    return F.normalize(F.to_tensor(view), list(preprocessing.mean), list(preprocessing.std))
