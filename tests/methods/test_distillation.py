"""Distillation for retrieval: its modes, what it caches, and that the teacher stays as it is."""

import contextlib
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.evaluation.cache import weights_digest
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.method.stages import Stage
from subnetbench.harness.training.monitor import Interrupted
from subnetbench.methods.parts.bases.distiller import LossName
from subnetbench.methods.parts.losses.distillation import LOSSES

TINY = {"epochs": 2, "batch_size": 16, "limit_steps": 2, "network": "cnn8-16", "dim": 12, "query_limit": 64, "views": 2}
STAGE = Stage("train", 2)


def scores_of(method, modules, context):
    return {(s.metric, s.variant, s.gallery_variant): s.value for s in method.evaluate(modules.eval(), context)}


@pytest.mark.parametrize(
    "config",
    [
        {"mode": "ts_aug", "update_every": 2, "batch_size": 8},
        {"mode": "ts_aug", "view_bank": 4},
        {"mode": "ts_aug", "student_start": "teacher"},
        {"mode": "ts_reg", "whitening_init": "pca"},
        {"mode": "sym", "update_every": 2, "whitening_init": "supervised"},
        {"mode": "sym", "mining": "batch", "loss_reduction": "sum"},
        {"mode": "ts_aug", "preset": "paper", "epochs": 2, "pretrained": False, "batch_size": 4, "update_every": 3,
         "image_size": 16, "teacher_image_size": 32, "dim": 12, "views": 2, "evaluate_every": 1},
        {"mode": "sym", "preset": "paper", "epochs": 2, "pretrained": False, "image_size": 16, "dim": 12,
         "batch_size": 8, "update_every": 1},
    ],
    ids=["ts_aug", "bank", "copy", "ts_reg", "sym", "sym-batch", "paper", "paper-sym"],
)  # fmt: skip
def test_an_interrupted_run_ends_with_the_same_bits(run_of, config):
    config = {**TINY, **config}
    with run_of("distillation", config, folder="straight") as (_, modules, _context):
        expected = {name: value.clone() for name, value in modules.state_dict().items()}
    for _ in range(30):
        with contextlib.suppress(Interrupted), run_of("distillation", config, stop_after=2) as (_, modules, _context):
            found = modules.state_dict()
            assert all(torch.equal(expected[name], found[name]) for name in expected)
            return
    raise AssertionError("it does not come to an end")


@pytest.mark.slow
@pytest.mark.parametrize("loss", LossName.__args__)
def test_every_loss_trains_the_student_and_not_the_teacher(run_of, loss):
    with run_of("distillation", {**TINY, "loss": loss, "epochs": 1}) as (method, modules, context):
        artifact = context.inputs["teacher"]
        before = weights_digest(artifact.variant().build())
        start = {name: value.clone() for name, value in method.build(context).state_dict().items()}
        moved = [name for name, value in modules.state_dict().items() if not torch.equal(value, start[name])]
        assert "network.whitening.weight" in moved
        assert weights_digest(method._teacher) == before
        assert all(parameter.grad is None for parameter in method._teacher.parameters())
        student = method.variants(modules, context)[0]
        assert student.details["aligning_loss"] == LOSSES[loss].aligning


def test_losses_that_need_classifiers_are_the_only_ones_not_offered():
    assert set(LOSSES) - set(LossName.__args__) == {name for name, loss in LOSSES.items() if loss.inputs == "logits"}


@pytest.mark.slow
def test_a_student_comes_close_to_its_teacher_and_its_queries_find_the_teachers_gallery(run_of):
    config = {**TINY, "epochs": 6, "limit_steps": None, "query_limit": 10_000, "lr": 0.01, "mode": "ts_reg"}
    # Whitened features of a random network point everywhere, so a student is close to them only when it has learned.
    teacher = {"mode": "sym", "network": "cnn8-16", "dim": 12, "whitening_init": "pca", "epochs": 0}
    found, closeness = [], []
    for epochs in (0, config["epochs"]):
        inputs = {"teacher": {"method": "distillation", "config": teacher}}
        with run_of("distillation", {**config, "epochs": epochs}, inputs=inputs, folder=f"{epochs}") as run:
            method, modules, context = run
            found.append(scores_of(method, modules, context))
            student, by_teacher, *_ = method.variants(modules, context)
            rows = [
                context.evaluator.outputs(v.build(), v.preprocessing, context.data.validation)
                for v in (student, by_teacher)
            ]
            closeness.append(torch.cosine_similarity(*rows).mean().item())
    untrained, trained = found
    asymmetric = ("map_trapezoid", "student", "teacher")
    assert closeness[1] > closeness[0] + 0.2
    assert trained[asymmetric] > untrained[asymmetric]
    assert trained[("macs_executed", "student", "")] < trained[("macs_executed", "teacher", "")]
    assert ("recall_at_1", "teacher_at_student_size", "teacher") in trained
    assert ("latency_ms", "student", "") in trained
    assert ("latency_ms", "teacher", "") in trained


@pytest.mark.slow
@pytest.mark.parametrize("config", [{"mode": "ts_reg"}, {"view_bank": 4}], ids=["ts_reg", "bank"])
def test_targets_are_computed_once_for_all_runs_of_a_folder(run_of, config):
    with run_of("distillation", {**TINY, **config}) as (method, _modules, context):
        method._cached_targets(0, context)
        calls = []
        other = type(method)(method.config)
        other.build(context)
        other._teacher.register_forward_hook(lambda *_: calls.append(1))
        expected = method._cached_targets(1, context)
        assert torch.equal(other._cached_targets(1, context), expected)
        assert calls == []
        for file in Path(context.cache).glob("*.npy"):
            file.write_bytes(file.read_bytes()[:100])
        assert torch.equal(other._cached_targets(1, context), expected)
        assert calls


@pytest.mark.slow
def test_banked_targets_are_the_teachers_embeddings_of_the_students_views(run_of):
    with run_of("distillation", {**TINY, "view_bank": 4}) as (method, modules, context):
        for epoch in (0, 1, 2):
            method.enter_epoch(modules, STAGE, epoch, context)
            piece = method.make_batch(np.array([5, 70, 3]), STAGE, epoch, context)
            banked = method._rendered(piece, stage=STAGE, epoch=epoch, context=context)
            targets, method._targets = method._targets, None
            fresh = method._rendered(piece, stage=STAGE, epoch=epoch, context=context)
            method._targets = targets
            assert torch.equal(banked.images, fresh.images)
            torch.testing.assert_close(
                banked.extra["target"], method._embed_by_teacher(fresh.extra["teacher"]), atol=1e-5, rtol=0
            )
            if epoch == 0:
                first = banked.images
        assert torch.equal(first, banked.images)


def test_accumulated_batches_make_the_step_of_one_large_batch(run_of):
    config = {**TINY, "freeze_batch_statistics": True, "epochs": 1, "optimizer": "sgd", "pool": "spoc"}
    states = []
    for folder, change in (("whole", {"batch_size": 16}), ("parts", {"batch_size": 4, "update_every": 4})):
        with run_of("distillation", {**config, **change}, folder=folder) as (_, modules, _context):
            states.append({name: value.clone() for name, value in modules.state_dict().items()})
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_published_preset_sums_drops_remainders_and_gives_one_rate(run_of):
    config = {"preset": "paper", "epochs": 2, "pretrained": False, "network": "cnn8-16", "dim": 12, "image_size": 16,
              "teacher_image_size": 32, "views": 2, "query_limit": 100, "batch_size": 8, "update_every": 5}  # fmt: skip
    teacher = {"teacher": {"method": "distillation", "config": {**TINY, "mode": "sym"}}}
    with run_of("distillation", {**config, "limit_steps": 1}, inputs=teacher) as (method, modules, context):
        plan = method.plan_epoch(modules, STAGE, 0, context)
        assert [len(step) for step in plan] == [40, 40]
        assert method.config.loss_reduction == "sum"
        assert method.preprocessing(context).interpolation == "lanczos"
        (optimization,) = method.optimizers(modules, STAGE, context).values()
        assert optimization.schedule.common_lr == method.config.lr
        # ceil(100 / 8 / 5) steps are announced for two that are taken
        assert optimization.schedule.total_steps == 3 * 2
        assert method.stages(context) == [Stage("train", 2, select=False)]


TEACHERS = {
    "distillation": {"method": "distillation", "config": {**TINY, "mode": "sym"}},
    "prunnet": {"method": "prunnet", "config": {**{name: TINY[name] for name in ("batch_size", "limit_steps", "network",
                "dim")}, "epochs": 1, "training": "dense", "recalibration_images": 32}},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_student_can_start_as_a_copy_of_its_teacher(run_of, teacher, frozen):
    config = {**TINY, "student_start": "teacher", "freeze_batch_statistics": frozen}
    inputs = {"teacher": TEACHERS[teacher]}
    with run_of("distillation", {**config, "epochs": 0}, inputs=inputs, folder="start") as (method, modules, context):
        student, _, small = method.variants(modules, context)
        ours, theirs = (
            context.evaluator.outputs(v.build(), v.preprocessing, context.data.validation) for v in (student, small)
        )
        torch.testing.assert_close(ours, torch.nn.functional.normalize(theirs), atol=1e-5, rtol=0)
        start = {name: value.clone() for name, value in modules.state_dict().items()}
        before = weights_digest(method._teacher)
    with run_of("distillation", config, inputs=inputs) as (method, modules, context):
        moved = [name for name, value in modules.state_dict().items() if not torch.equal(value, start[name])]
        assert len(moved) >= len(list(modules.parameters()))
        assert any("running" in name for name in moved) != frozen
        assert weights_digest(method._teacher) == before
        assert all(parameter.grad is None for parameter in method._teacher.parameters())


@pytest.mark.parametrize(("start", "shared"), [("teacher", True), ("network", False)])
def test_a_copy_of_the_teacher_gets_pixels_as_the_teacher_does(run_of, start, shared, monkeypatch):
    with run_of("distillation", {**TINY, "student_start": start, "epochs": 0}) as (method, _modules, context):
        teacher = method._teacher_variant(context)
        other = dataclasses.replace(teacher.preprocessing, mean=(0.1, 0.2, 0.3))
        monkeypatch.setattr(method, "_teacher_variant", lambda _: dataclasses.replace(teacher, preprocessing=other))
        assert (method.preprocessing(context).mean == other.mean) == shared
        assert method.preprocessing(context).size == other.size // 2


@pytest.mark.parametrize(
    ("change", "words"), [({"network": "cnn8-8"}, r"network.*cnn8-16"), ({"dim": 10}, "one space")]
)
def test_a_student_that_starts_as_a_copy_has_its_teachers_network(run_of, change, words):
    config = {**TINY, "student_start": "teacher", **change}
    inputs = {"teacher": TEACHERS["distillation"]}
    with pytest.raises(UserError, match=words), run_of("distillation", config, inputs=inputs):
        pass


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"views": 1}, "views"),
        ({"views": 4, "view_bank": 6}, "view_bank"),
        ({"loss": "fitnet", "loss_options": {"temperature": 2.0}}, "loss_options"),
        ({"loss": "kd"}, "loss"),
        ({"mode": "ts_agu"}, "mode"),
        ({"mode": "sym", "student_start": "teacher"}, "mode"),
        ({"whitening_init": "pca", "student_start": "teacher"}, "whitening_init"),
    ],
)
def test_bad_configs_are_refused(config, words):
    with pytest.raises(UserError, match=words):
        resolve("distillation", "emoji", config=config)


@pytest.mark.slow
def test_student_and_teacher_need_one_width(run_of):
    inputs = {"teacher": {"method": "triplet", "config": {**{k: TINY[k] for k in ("epochs", "limit_steps", "network",
              "batch_size", "query_limit")}, "dim": 10}}}  # fmt: skip
    with pytest.raises(UserError, match="one space"), run_of("distillation", TINY, inputs=inputs):
        pass


def test_a_symmetric_run_has_no_teacher():
    assert resolve("distillation", "emoji", config={"mode": "sym"}).dependencies() == []
    (teacher,) = resolve("distillation", "emoji", config={"mode": "ts_reg", "dim": 24}).dependencies()
    assert get_method(teacher.method).Config.parse(teacher.config).dim == 24
    assert teacher.config["mode"] == "sym"
