"""Text-to-image search: two towers, encoders made from them, and cascades over finished encoders."""

import contextlib
import json

import numpy as np
import open_clip
import pytest
import torch

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.training.monitor import Interrupted
from subnetbench.methods.parts.text_image.cost import lifetime_speedup
from subnetbench.methods.parts.text_image.early_exit import EarlyExit
from subnetbench.methods.parts.text_image.encoders import PUBLISHED_PROMPT
from subnetbench.methods.parts.text_image.measures import Collection
from subnetbench.methods.parts.vit.pruning import MaskedViT

VIT = {"image_size": 16, "patch_size": 4, "width": 16, "layers": 3, "heads": 2, "dim": 8}
SHORT = {"epochs": 2, "batch_size": 16, "limit_steps": 2}
TEACHER = {"method": "two_tower", "config": {**SHORT, **VIT}}
STUDENT = {"method": "clip_student", "config": {**SHORT, "network": "cnn8-8", "image_size": 16},
           "inputs": {"teacher": TEACHER}}  # fmt: skip
FROM_TEACHER = {"teacher": TEACHER}


def scores_of(method, modules, context):
    return {(s.metric, s.variant): s.value for s in method.evaluate(modules.eval(), context)}


def images_of(context, variant, count=12):
    return variant.preprocessing(context.data.test.images, np.arange(count), context.device)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "config", "inputs"),
    [
        ("two_tower", {"image": "cnn8-16", "freeze_image": True, "augment": "none", "dim": 8}, None),
        ("clip_student", {"network": "cnn8-8", "augment": "crop"}, FROM_TEACHER),
        ("clip_student", {"network": "cnn8-8", "train_backbone": False, "head_layers": 2, "hidden": 6}, FROM_TEACHER),
        ("clip_student", {"preset": "paper", "network": "cnn8-8", "pretrained": False, "epochs": 2}, FROM_TEACHER),
        ("clip_student", {"network": "cnn8-8", "augment": "student"}, FROM_TEACHER),
        ("early_exit", {"depth": 2, "augment": "crop"}, FROM_TEACHER),
    ],
)
def test_an_interrupted_run_ends_with_the_same_bits(run_of, method, config, inputs):
    config = {**SHORT, **config}
    with run_of(method, config, inputs=inputs, task="text_image", folder="straight") as (_, modules, _context):
        expected = {name: value.clone() for name, value in modules.state_dict().items()}
    for _ in range(30):
        run = run_of(method, config, inputs=inputs, task="text_image", stop_after=2)
        with contextlib.suppress(Interrupted), run as (_, modules, _context):
            found = modules.state_dict()
            assert all(torch.equal(expected[name], found[name]) for name in expected)
            return
    raise AssertionError("it does not come to an end")


@pytest.mark.slow
def test_two_towers_learn_which_caption_belongs_to_which_image(run_of):
    config = {**VIT, "width": 32, "dim": 16, "epochs": 12, "batch_size": 64, "augment": "none", "lr": 3e-3}
    config |= {"weight_decay": 0.01, "evaluate_every": 0}
    with run_of("two_tower", config) as (method, modules, context):
        (variant,) = method.variants(modules, context)
        train = context.data.train
        rows = context.evaluator.outputs(variant.build(), variant.preprocessing, train)
        texts = variant.text_encoder([own[0] for own in train.captions])
        similarity = torch.nn.functional.normalize(rows, dim=1) @ torch.nn.functional.normalize(texts, dim=1).T
        same = torch.from_numpy(train.labels[:, None] == train.labels[None, :])
        assert similarity[same].mean() > similarity[~same].mean() + 0.2


def test_images_that_share_a_caption_are_all_right_answers(run_of):
    with run_of("two_tower", {**SHORT, **VIT}) as (method, modules, _context):
        eye = torch.eye(8)
        modules["image"], modules["text"] = torch.nn.Identity(), torch.nn.Identity()
        step = type("Step", (), {"gather": staticmethod(lambda rows: rows), "world": _context.world})()

        def loss(captions, images):
            batch = type("Batch", (), {"images": images, "labels": captions, "extra": {"text": eye[captions]}})()
            return method.loss(modules, batch, step)["loss"].item()

        perfect = loss(torch.tensor([0, 0, 1]), eye[torch.tensor([0, 0, 1])])
        swapped = loss(torch.tensor([0, 0, 1]), eye[torch.tensor([0, 1, 0])])
        assert perfect < swapped
        assert loss(torch.tensor([0, 0, 1]), eye[torch.tensor([0, 0, 1])]) == pytest.approx(
            loss(torch.tensor([0, 1, 0]), eye[torch.tensor([0, 1, 0])])
        )


@pytest.mark.parametrize("config", [{"image": "clip"}, {"freeze_image": True}, {"width": 10, "heads": 4},
                                    {"image": "cnn8-8", "freeze_image": True}])  # fmt: skip
def test_bad_towers_are_refused(config):
    with pytest.raises(UserError):
        resolve("two_tower", "emoji", config=config)


def test_clip_from_a_local_folder_is_used_as_it_is(run_of, tmp_path):
    torch.manual_seed(0)
    shape = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    reference = open_clip.CLIP(**shape).eval()
    torch.save(reference.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": shape, "preprocess_cfg": {"size": 32}}))
    config = {"image": "clip", "clip_path": str(tmp_path), "clip_library": "open_clip", "epochs": 0}
    with run_of("two_tower", config, task="text_image") as (method, modules, context):
        (variant,) = method.variants(modules, context)
        images = images_of(context, variant)
        with torch.no_grad():
            expected = reference.encode_image(images)
        torch.testing.assert_close(variant.build()(images), expected, atol=1e-4, rtol=1e-4)
        assert ("text_to_image_recall_at_1", "dense") in scores_of(method, modules, context)
    with run_of("two_tower", {**config, "preset": "paper"}, task="text_image", folder="glued") as (method, *_):
        assert method.prompt == PUBLISHED_PROMPT
    trained = {**SHORT, **config, "epochs": 1}
    with run_of("two_tower", trained, task="text_image", folder="trained") as (method, modules, context):
        after = method.variants(modules, context)[0].build()(images)
        assert not torch.allclose(after, expected, atol=1e-4)


def test_derived_encoders_keep_the_teachers_text_encoder(run_of):
    found = set()
    for name, config in (("token_masking", {}), ("early_exit", {**SHORT, "depth": 1}), ("clip_student", SHORT)):
        with run_of(name, config, inputs=FROM_TEACHER, folder=name) as (method, modules, context):
            found |= {variant.text_encoder.identity for variant in method.variants(modules, context)}
    assert len(found) == 1


def test_no_masking_is_the_dense_encoder(run_of):
    with run_of("token_masking", {"masked_share": 0.0}, inputs=FROM_TEACHER) as (method, modules, context):
        (variant,) = method.variants(modules, context)
        images = images_of(context, variant)
        torch.testing.assert_close(variant.build()(images), method.teacher(context).build()(images), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "config"), [("head_sensitivity", {"steps": 2}), ("fisher_pruning", {"capacity": 0.6})]
)
def test_pruned_encoders_are_compacted_and_no_larger_than_asked(run_of, name, config):
    config = {**config, "calibration_images": 48, "calibration_batch": 16}
    with run_of(name, config, inputs=FROM_TEACHER) as (method, modules, context):
        pruned, random = method.variants(modules, context)
        images = images_of(context, pruned)
        masked = modules["network"]
        assert isinstance(masked, MaskedViT)
        torch.testing.assert_close(pruned.build()(images), masked(images), atol=1e-5, rtol=1e-4)
        assert pruned.capacity == random.capacity
        assert pruned.capacity <= config.get("capacity", 1.0)
        scores = scores_of(method, modules, context)
        assert scores[("macs_executed", "pruned")] == scores[("macs_executed", "random")]
        assert scores[("macs_executed", "pruned")] < context.inputs["teacher"].variant().details.get("macs", np.inf)
        if name == "head_sensitivity":
            assert scores[("heads_kept", "pruned")] == 1 + 1 + 2


def test_an_early_exit_offers_both_levels(run_of):
    with run_of("early_exit", {**SHORT, "depth": 1}, inputs=FROM_TEACHER) as (method, modules, context):
        first, whole = method.variants(modules, context)
        network = modules["network"]
        assert isinstance(network, EarlyExit)
        assert whole.continues == first.name
        images = images_of(context, whole)
        assert torch.equal(whole.build()(images), method.teacher(context).build()(images))
        scores = scores_of(method, modules, context)
        assert scores[("macs_shared", "whole")] < scores[("macs_executed", "exit")]
        assert scores[("macs_executed", "exit")] < scores[("macs_executed", "whole")]


def test_a_cascade_reports_what_it_found_and_what_it_cost(run_of):
    config = {"m": (40,), "small_world_queries": 60, "hot_share": 0.05, "timed_queries": 2}
    with run_of("cascade", config, inputs={"levels": [STUDENT, TEACHER]}) as (method, modules, context):
        scores = scores_of(method, modules, context)
        size = len(context.data.test)
        for life in ("every_image", "small_world"):
            shares = [scores[(f"encoded_share_{life}", f"level{level}")] for level in (0, 1)]
            macs = [scores[("cascade_macs", f"level{level}")] for level in (0, 1)]
            assert shares[0] == 1
            assert 40 / size <= shares[1] <= 1
            assert scores[(f"lifetime_speedup_{life}", "cascade")] == pytest.approx(
                lifetime_speedup(macs[-1:], macs, shares, 1.0), rel=1e-12
            )
        assert scores[("encoded_share_small_world", "level1")] < scores[("encoded_share_every_image", "level1")]
        assert scores[("cold_query_macs", "cascade")] == 40 * scores[("cascade_macs", "level1")]
        assert scores[("warm_latency_ms", "cascade")] < scores[("cold_latency_ms", "cascade")]


def test_a_cascade_that_hands_on_everything_is_its_last_level(run_of):
    inputs = {"levels": [STUDENT, TEACHER]}
    with run_of("cascade", {"m": (10,)}, inputs=inputs) as (method, modules, context):
        variants = method.variants(modules, context)
        collection = Collection(variants, context, context.data.validation, "torch")
        alone = collection.all_captions((), collection.levels[-1:])
        assert collection.all_captions((collection.size,)) == alone
        first = collection.all_captions((), collection.levels[:1])
        # with as many candidates as answers the last level only orders what the first one chose
        k = collection.ks[-1]
        assert collection.all_captions((k,))[k] == first[k]


def test_the_widths_are_fixed_on_validation(run_of):
    inputs = {"levels": [STUDENT, TEACHER]}
    with run_of("cascade", {"m_shares": (0.5, 1.0), "max_loss": 0.0}, inputs=inputs) as (method, modules, context):
        share = method.state["m_share"]
        variants = method.variants(modules, context)
        collection = Collection(variants, context, context.data.validation, "torch")
        wanted = collection.all_captions((), collection.levels[-1:])[10]
        reached = {s: collection.all_captions(method._widths(collection, s))[10] >= wanted for s in (0.5, 1.0)}
        assert share == (0.5 if reached[0.5] else 1.0)
        test = Collection(variants, context, context.data.test, "torch")
        assert method._widths(test) == [max(10, int(np.ceil(share * test.size)))]


def test_levels_of_an_early_exit_share_their_work(run_of):
    exit_run = {"method": "early_exit", "config": {**SHORT, "depth": 1}, "inputs": FROM_TEACHER}
    config = {"m": (20,), "variants": ("exit", "whole"), "timed_queries": 2, "small_world_queries": 20}
    with run_of("cascade", config, inputs={"levels": [exit_run, exit_run]}) as (method, modules, context):
        scores = scores_of(method, modules, context)
        whole, shared = scores[("macs_executed", "level1")], scores[("macs_shared", "level1")]
        assert scores[("cascade_macs", "level1")] == pytest.approx(whole - shared)
        assert scores[("cascade_macs", "level0")] == scores[("macs_executed", "level0")]


def test_one_name_a_level_is_needed(run_of):
    with (
        pytest.raises(UserError, match="one name a level"),
        run_of("cascade", {"variants": ("student",)}, inputs={"levels": [STUDENT, TEACHER]}),
    ):
        pass
