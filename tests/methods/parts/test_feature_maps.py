import pytest

from subnetbench.methods.parts.networks.feature_maps import pretrained_pixel_statistics

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", IMAGENET),
        ("googlenet", HALF),
        ("tf_efficientnet_lite0", HALF),
        ("timm/vit_small_patch16_224", HALF),
        ("hgsl_resnet50", IMAGENET),
    ],
)
def test_pixels_are_normalised_as_published_weights_expect(name, expected):
    assert pretrained_pixel_statistics(name) == expected
