"""What ASLP and supermask add to training: sampled metrics, the paper's validation, and forced cuts."""

import numpy as np
import pytest
import torch

from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.testing.short_runs import train_here
from subnetbench.methods.parts.masks.masked_model import masked_network


def spec(method="supermask", **config):
    return resolve(
        method, "digits", config={"network": "conv2", "image_size": 8, "epochs": 1, "batch_size": 64, **config}
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["aslp", "supermask"])
def test_forced_variants_keep_the_highest_scores_of_each_layer(method, tmp_path):
    run = spec(method, weight_rescale=True, lr=5.0, forced_sparsities=[0.9])
    with train_here(run, tmp_path, inputs=tmp_path) as (search, modules, context):
        masked = masked_network(modules)
        names = [variant.name for variant in search.variants(modules, context)]
        plain = search.variants(modules, context)[1].build()
        assert names == ["subnetwork", "forced-0.9"]
        for layer, name in enumerate(masked.names):
            score, weight = masked.score(name), plain.get_parameter(name)
            kept = weight != 0
            assert score[kept].min() > score[~kept].max()
            assert (~kept).float().mean().item() == pytest.approx(0.9, abs=0.02)
            gain = masked.mask.gain(layer, kept)
            torch.testing.assert_close(weight[kept], (masked.weight(name) * gain)[kept])
        metrics = {(score.variant, score.metric): score.value for score in search.evaluate(modules, context)}
        assert metrics["forced-0.9", "sparsity"] == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("augment", [True, False])
def test_the_paper_validates_sampled_masks_on_augmented_images_not_normalised_without(augment, tmp_path):
    run = spec(preset="paper", augment=augment)
    with train_here(run, tmp_path, inputs=tmp_path) as (search, modules, context):
        masked, seen, draws = masked_network(modules), [], []
        masked.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        original = masked.draw
        masked.draw = lambda generator=None: (draws.append(generator), original(generator))[1]
        accuracies = [search.validate(modules, search.stages(context)[0], context)["top1"] for _ in range(2)]
        images = context.data.validation.images.read(np.arange(len(context.data.validation)))
        first, second = torch.cat(seen[: len(seen) // 2]), torch.cat(seen[len(seen) // 2 :])
        assert len(draws) == len(seen)  # a mask for every batch
        assert 0 < accuracies[0] != accuracies[1]
        assert torch.equal(first, second) != augment
        if not augment:
            torch.testing.assert_close(first[:, 0], torch.stack(images)[:, 0] / 255)
