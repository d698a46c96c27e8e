"""PrunNet as a method: its options, its variants, and that it learns what it is for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.data.images import TensorImages
from subnetbench.harness.data.splits import Split, TaskData
from subnetbench.harness.distributed.compute import Compute
from subnetbench.harness.distributed.world import open_world
from subnetbench.harness.evaluation.evaluator import Evaluator
from subnetbench.harness.evaluation.protocols import evaluate_variants
from subnetbench.harness.method.context import Context
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.training.loop import TrainingLoop
from subnetbench.methods.parts.capacity.capacity import Capacity
from subnetbench.methods.parts.networks.batch_norm import batch_norms


def weights_of(run):
    with run as (_, modules, _):
        return {name: value.clone() for name, value in modules.state_dict().items()}


@pytest.fixture
def usual(short_run):
    return weights_of(short_run("prunnet"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"training": "dense"},
        {"gradients": "sum"},
        {"gradients": "pcgrad"},
        {"exponent": 2.0},
        {"per_filter": False},
        {"agreement": "dot"},
        {"heads": "all"},
        {"capacity_clip_norm": 0.1},
        {"train_scores": False},
        {"weight_loss_by_capacity": True},
        {"sample_weighting": "divergence"},
        {"sample_weighting": "curriculum"},
        {"sample_weighting": "curriculum", "curriculum_epochs": 0},
        {"loss": "arcface"},
        {"loss": "cosface"},
        {"optimizer": "adamw", "warmup_epochs": 0.5},
        {"samples_per_class": 4},
        {"score_start": "magnitude"},
        {"prior_bias": True},
    ],
    ids=str,
)
def test_every_option_changes_what_is_trained(options, usual, short_run):
    found = weights_of(short_run("prunnet", **options))
    assert found.keys() == usual.keys()
    assert all(value.isfinite().all() for value in found.values())
    assert any(not torch.equal(found[name], usual[name]) for name in usual)


def test_frozen_scores_stay_where_they_start(short_run):
    trained = weights_of(short_run("prunnet", train_scores=False))
    start = weights_of(short_run("prunnet", train_scores=False, epochs=0))
    scores = [name for name in start if name.startswith("scores.")]
    assert scores
    assert all(torch.equal(trained[name], start[name]) for name in scores)


@pytest.mark.slow
@pytest.mark.parametrize("training", ["subnetworks", "dense"])
def test_subnetworks_can_keep_depthwise_convolutions_whole(training, short_run):
    options = {"network": "mobilenet_v2", "prune_depthwise": False, "limit_steps": 2, "training": training}
    with short_run("prunnet", **options) as (method, modules, _):
        small, dense = (method.subnetwork(modules, Capacity(c)).backbone for c in (0.3, 1.0))
        for name, layer in small.named_modules():
            if isinstance(layer, torch.nn.Conv2d):
                of_dense = dense.get_submodule(name).weight
                if layer.groups > 1:
                    assert torch.equal(layer.weight, of_dense)
                else:
                    kept = layer.weight.count_nonzero().item() / layer.weight.numel()
                    assert kept == pytest.approx(0.3, abs=0.01), name


def test_score_maps_of_their_own_are_trained_apart_and_not_nested(short_run):
    with short_run("prunnet", score_maps="per_capacity", limit_steps=2) as (method, modules, _):
        assert len(modules["scores"]) == 2
        large, small = (method.subnetwork(modules, Capacity(c)).backbone[0].weight != 0 for c in (0.6, 0.3))
        assert bool((small & ~large).any())
    with short_run("prunnet", limit_steps=2) as (method, modules, _):
        large, small = (method.subnetwork(modules, Capacity(c)).backbone[0].weight != 0 for c in (0.6, 0.3))
        assert not bool((small & ~large).any())


def test_a_capacity_that_was_never_trained(short_run):
    with short_run("prunnet") as (method, modules, context):
        listed = {variant.name: variant for variant in method.variants(modules, context)}
        assert list(listed) == ["dense", "capacity_0.6", "capacity_0.3"]
        unseen = method.variant_on_demand("capacity_0.45", modules, context)
        images = torch.randn(4, 3, 16, 16)
        network = unseen.build()
        weights = [p for name, p in network.backbone.named_parameters() if p.dim() > 1]
        kept = sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)
        assert kept == pytest.approx(0.45, abs=0.005)
        assert not torch.equal(network(images), listed["capacity_0.3"].build()(images))
        # What is made on demand is what the run would have listed.
        again = method.variant_on_demand("capacity_0.3", modules, context)
        assert torch.equal(again.build()(images), listed["capacity_0.3"].build()(images))
        assert method.variant_on_demand("ticket", modules, context) is None
        with pytest.raises(UserError, match="share of weights"):
            method.variant_on_demand("capacity_0", modules, context)


def test_capacities_have_batch_norm_statistics_of_their_own(short_run):
    with short_run("prunnet") as (method, modules, context):
        statistics = []
        for variant in method.variants(modules, context):
            network = variant.build()
            statistics.append(torch.cat([layer.running_mean for layer in batch_norms(network).values()]))
        assert not torch.equal(statistics[0], statistics[1])
        assert not torch.equal(statistics[1], statistics[2])


def test_a_matrix_costs_one_pass_a_network_and_image(short_run, monkeypatch):
    embedded = []
    outputs = Evaluator.outputs

    def counted(self, module, preprocessing, split):
        embedded.append(len(split))
        return outputs(self, module, preprocessing, split)

    with short_run("prunnet", evaluate_capacities=[0.1]) as (method, modules, context):
        monkeypatch.setattr(Evaluator, "outputs", counted)
        variants = method.variants(modules, context)
        images = context.data.test
        queries, gallery = images.subset(np.arange(30), "query"), images.subset(np.arange(len(images)), "gallery")
        test = Split(name="test", images=queries.images, labels=queries.labels, classes=images.classes, gallery=gallery)
        evaluator = Evaluator(replace(context.data, test=test), context.world)
        scores = evaluate_variants(variants, evaluator, "test", pairs=method.pairs, costs=False)
    assert sum(embedded) == len(variants) * (len(queries) + len(gallery))
    pairs = {(s.variant, s.gallery_variant) for s in scores if s.metric == "map" and s.gallery_variant}
    assert len(pairs) == len(variants) ** 2 == 16


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        "resnet18",
        "mobilenet_v2",
        "resnext50_32x4d",
        "convnext_tiny",
        "timm/vit_small_patch16_224",
        "swin_tiny_patch4_window7_224",
    ],
)
def test_backbones(network, short_run):
    options = {"batch_size": 4, "limit_steps": 1, "image_size": 32, "capacities": [0.5], "recalibration": "none"}
    with short_run("prunnet", network=network, optimizer="adamw", lr=1e-4, **options) as (method, modules, context):
        dense, half = (variant.build() for variant in method.variants(modules, context))
        images = torch.randn(2, 3, 32, 32)
        assert dense(images).shape == half(images).shape == (2, 16)
        zeros = sum(int((p == 0).sum()) for p in half.backbone.parameters() if p.dim() > 1)
        assert zeros / sum(p.numel() for p in half.backbone.parameters() if p.dim() > 1) > 0.4


def digits():
    """Digits 0 to 5 at 16 pixels; test images are of the same classes, each a query to all others."""
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    data = load_digits()
    chosen = np.flatnonzero(data.target < 6)
    chosen = np.random.default_rng(0).permutation(chosen)
    pixels = torch.from_numpy(np.round(data.images[chosen] * (255 / 16)).astype(np.uint8))
    images = torch.nn.functional.interpolate(pixels[:, None].float(), size=16, mode="bilinear")
    images = images.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    labels = data.target[chosen].astype(np.int64)

    def split(name, first, last):
        return Split(name=name, images=TensorImages(images[first:last]), labels=labels[first:last])

    train, test = split("train", 0, 800), split("test", 800, len(labels))
    statistics = {"mean": (0.3,) * 3, "std": (0.35,) * 3}
    return TaskData(
        dataset="digits",
        task="retrieval",
        train=train,
        validation=test,
        test=test,
        image_size=16,
        protocol="seen classes",
        digest="",
        **statistics,
    )


def matrix_after(data, seed=0, **config):
    """mAP by pair of variants after 160 steps on `data`."""
    cls = get_method("prunnet")
    options = {
        "network": "cifar_resnet8",
        "dim": 16,
        "batch_size": 50,
        "epochs": 10,
        "lr": 0.02,
        "schedule": "multistep",
        "milestones": [0.7],
        "augment": "none",
        "evaluate_every": 0,
        "capacities": [0.6, 0.2],
        "evaluate_capacities": [0.4],
    }
    parsed = cls.Config.parse({**options, **config})
    spec = RunSpec(
        method="prunnet",
        dataset="digits",
        task="retrieval",
        config=parsed.model_dump(mode="json"),
        data={},
        seed=seed,
        compute=Compute(device="cpu"),
    )
    world = open_world(spec.compute)
    try:
        context = Context(spec=spec, data=data, world=world)
        method = cls(parsed)
        modules = TrainingLoop(method, context).run().eval()
        scores = evaluate_variants(
            method.variants(modules, context), context.evaluator, "test", pairs=method.pairs, costs=False
        )
    finally:
        world.close()
    return {(s.variant, s.gallery_variant): s.value for s in scores if s.metric == "map"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_small_networks_search_the_dense_gallery():
    """The bar: the 20 % network stays close to the dense one in both tests, where a pruned dense network collapses."""
    data = digits()
    found = matrix_after(data)
    dense = found["dense", "dense"]
    assert dense > 0.9
    for name in ("capacity_0.6", "capacity_0.2"):
        assert found[name, name] > dense - 0.05, found
        assert found[name, "dense"] > dense - 0.05, found
    assert found["capacity_0.4", "dense"] > 0.8, found  # never trained
    pruned = matrix_after(data, training="dense")
    assert pruned["dense", "dense"] > 0.9
    assert pruned["capacity_0.2", "dense"] < found["capacity_0.2", "dense"] - 0.1, pruned
