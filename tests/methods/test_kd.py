"""Distillation of classifiers: its losses against their formulas, and what a student takes over from its teacher."""

import numpy as np
import pytest
import torch
from torch import nn

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.method.resolve import resolve
from subnetbench.methods.kd import KD
from subnetbench.methods.parts.losses.classifier_distillation import dist, hint_loss, hint_regressor
from subnetbench.methods.parts.networks.small import small_network
from subnetbench.methods.parts.networks.taps import last_linear, middle_convolution, tapped

SHORT = {"epochs": 1, "batch_size": 16, "limit_steps": 2, "network": "conv2", "image_size": 8}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_dist_is_one_minus_pearsons_correlation_of_rows_and_of_columns():
    own, target, temperature = draw(6, 5).double(), draw(6, 5, seed=1).double(), 2.0
    p, q = ((each.numpy() / temperature) for each in (own, target))
    p, q = (np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in (p, q))
    rows = np.mean([1 - np.corrcoef(p[i], q[i])[0, 1] for i in range(6)])
    columns = np.mean([1 - np.corrcoef(p[:, j], q[:, j])[0, 1] for j in range(5)])
    found = dist(own, target, temperature=temperature)
    assert {name: float(part) for name, part in found.items()} == pytest.approx(
        {"inter_class": 4 * rows, "intra_class": 4 * columns}
    )


def test_dist_is_zero_for_probabilities_that_are_the_same_up_to_scale_and_shift():
    # Of two classes the probabilities of any sample are 1/2 +- x.
    own, target = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([[2.0, 0.0], [0.0, 0.5]])
    assert float(dist(own, target)["inter_class"]) == pytest.approx(0, abs=1e-6)


def test_hints_of_different_size_meet_at_the_smaller_one():
    guided, hint = draw(2, 3, 4, 4), draw(2, 3, 2, 4, seed=1)
    by_hand = (guided.unflatten(2, (2, 2)).mean(3) - hint).square().mean()
    torch.testing.assert_close(hint_loss(guided, hint), by_hand)


@pytest.mark.parametrize(("own", "target"), [((2, 3, 4, 4), (2, 5)), ((2, 3, 4), (2, 3, 4))])
def test_hints_that_cannot_be_regressed_are_refused(own, target):
    with pytest.raises(UserError, match="hint_layer"):
        hint_regressor(draw(*own), draw(*target))


def test_taps_find_what_goes_in_and_comes_out_and_leave_no_trace():
    network, images = small_network("conv4", size=8), draw(2, 3, 8, 8)
    assert (last_linear(network), middle_convolution(network)) == ("fc3", "conv3")
    with tapped(network, inputs=["fc3"], outputs=["conv3"]) as kept:
        logits = network(images)
    torch.testing.assert_close(network.fc3(kept["fc3"]), logits)
    assert kept["conv3"].shape == (2, 128, 4, 4)
    kept.clear()
    network(images)
    assert not kept


def test_a_network_without_linear_layer_has_no_features():
    with pytest.raises(UserError, match="no linear layer"):
        last_linear(nn.Conv2d(3, 3, 1))


# What a step's loss is, written out from its published formula: labels, then the comparison with the teacher.
def hinton(own, target, temperature=4.0):
    p, log_q = (target / temperature).softmax(1), (own / temperature).log_softmax(1)
    return 0.9 * temperature**2 * (p * (p.log() - log_q)).sum(1).mean()


@pytest.mark.parametrize("loss", ["soft_labels", "dist", "rkd", "fitnet"])
def test_a_student_follows_its_teacher(loss, run_of):
    teacher = {"method": "dense", "config": {**SHORT, "network": "conv4"}}
    with run_of("kd", {**SHORT, "loss": loss}, inputs={"teacher": teacher}) as (method, modules, context):
        student, other = method.variants(modules, context)
        assert (student.name, other.name, other.frozen, other.origin.method) == ("student", "teacher", True, "dense")
        assert ("regressor" in modules) == (loss == "fitnet")
        own, target = modules["network"], other.build()
        stage = method.stages(context)[0]
        batch = method.make_batch(np.arange(12), stage, 0, context)
        step = type("Step", (), {"world": context.world, "gather": lambda self, rows: rows})()
        with torch.no_grad():
            found = method.loss(modules, batch, step)
            logits, aim = own(batch.images), target(batch.images)
            labels = nn.functional.cross_entropy(logits, batch.labels) * (0.1 if loss == "soft_labels" else 1)
            torch.testing.assert_close(found["labels"], labels)
            torch.testing.assert_close(found["loss"], sum(v for k, v in found.items() if k not in ("loss", "accuracy")))
            if loss == "soft_labels":
                torch.testing.assert_close(found["soft_labels"], hinton(logits, aim))
            if loss == "fitnet":
                with tapped(own, outputs=["conv2"]) as mine, tapped(target, outputs=["conv3"]) as theirs:
                    own(batch.images), target(batch.images)
                guided = nn.functional.avg_pool2d(modules["regressor"](mine["conv2"]), 2)
                torch.testing.assert_close(found["hints"], 100 * (guided - theirs["conv3"]).square().mean())
            if loss == "rkd":
                with tapped(own, inputs=["fc3"]) as mine, tapped(target, inputs=["fc3"]) as theirs:
                    own(batch.images), target(batch.images)
                relative = [torch.cdist(x, x) * 132 / torch.cdist(x, x).sum() for x in (mine["fc3"], theirs["fc3"])]
                by_hand = 25 * nn.functional.smooth_l1_loss(*relative)
                torch.testing.assert_close(found["distance"], by_hand, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"loss": "dist", "micro_batch_size": 4}, "micro_batch_size"),
        ({"hint_layer": "conv1"}, "hint_layer"),
    ],
)
def test_options_that_do_not_fit_the_loss_are_refused(config, fault):
    with pytest.raises(UserError, match=fault):
        KD.Config.parse(config)


def test_a_student_of_another_size_or_layer_is_refused(run_of):
    teacher = {"method": "dense", "config": {**SHORT, "epochs": 0}}
    for config, fault in (({"image_size": 16}, "the teacher sees another size"), ({"guided_layer": "conv9"}, "conv2")):
        asked = {**SHORT, "loss": "fitnet", **config}
        with pytest.raises(UserError, match=fault), run_of("kd", asked, inputs={"teacher": teacher}):
            pass


def test_the_teacher_is_a_dense_classifier_of_the_same_recipe():
    spec = resolve("kd", "emoji", config={**SHORT, "lr": 0.05, "teacher_network": "conv4"})
    teacher = spec.inputs["teacher"]
    assert (teacher.method, teacher.config["network"], teacher.config["lr"]) == ("dense", "conv4", 0.05)
