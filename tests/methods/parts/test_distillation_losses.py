import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from published.losses import asymmetric_contrastive
from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.losses.distillation import LOSSES, distillation_loss, raml
from subnetbench.methods.parts.losses.neighbours import dark_rank

LABELS = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2])
OF_IMAGES = sorted(name for name, loss in LOSSES.items() if loss.inputs != "logits")


def unit(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def inputs(name: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A student that resembles its teacher, in the shape that the loss takes."""
    shape = (8, 4, 6) if LOSSES[name].inputs == "views" else (8, 6)
    teacher = unit(*shape, seed=seed)
    return normalize(teacher + 0.5 * unit(*shape, seed=seed + 1), dim=-1), teacher


def value(name: str, student: Tensor, teacher: Tensor, **options) -> Tensor:
    return torch.stack(list(distillation_loss(name, student, teacher, labels=LABELS, **options).values())).sum()


def rotation() -> Tensor:
    orthogonal, _ = torch.linalg.qr(unit(6, 6, seed=9))
    return orthogonal


@pytest.mark.parametrize("name", OF_IMAGES)
def test_exactly_the_aligning_losses_notice_when_the_students_space_is_turned(name):
    student, teacher = inputs(name)
    turned = torch.isclose(value(name, student @ rotation(), teacher), value(name, student, teacher), rtol=1e-6)
    assert bool(turned) is not LOSSES[name].aligning


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_value(name):
    student, teacher = inputs(name)
    student.requires_grad_()
    # The orders in `rop` are steps on the teacher's side only, so all losses are smooth in the student here.
    assert torch.autograd.gradcheck(lambda s: value(name, s, teacher), student, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_descent_on_a_loss_lowers_it(name):
    student, teacher = inputs(name)
    leaf = student.clone().requires_grad_()
    before = value(name, leaf, teacher)
    (gradient,) = torch.autograd.grad(before, leaf)
    assert value(name, student - 1e-5 * gradient / gradient.norm(), teacher) < before


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"cc"}))
def test_the_order_of_the_batch_does_not_matter(name):
    student, teacher = inputs(name)
    order = torch.from_numpy(np.random.default_rng(0).permutation(8))
    shuffled = distillation_loss(name, student[order], teacher[order], labels=LABELS[order])
    for part, given in distillation_loss(name, student, teacher, labels=LABELS).items():
        torch.testing.assert_close(shuffled[part], given)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_raised_before_the_loss(name):
    student, teacher = (vectors.half() for vectors in inputs(name))
    parts = distillation_loss(name, student, teacher, labels=LABELS)
    assert {part.dtype for part in parts.values()} <= {torch.float32, torch.float64}
    expected = distillation_loss(name, student.float(), teacher.float(), labels=LABELS)
    assert {part: float(v) for part, v in parts.items()} == {part: float(v) for part, v in expected.items()}


def test_a_perfect_student_has_no_raml_loss():
    teacher = unit(3, 4, 6)
    assert value("raml", teacher, teacher) < 1e-11


def test_raml_by_hand():
    student, teacher = inputs("raml")
    parts = raml(student, teacher, lam_ts=2.0, lam_ss=3.0)
    by_hand = {"absolute": 0.0, "relational_ts": 0.0, "relational_ss": 0.0}
    for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
        by_hand["absolute"] += np.mean([(1 - s[i] @ t[i] + 1e-6) ** 2 for i in range(4)]) / 8
        pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
        by_hand["relational_ts"] += 2 * np.mean([(s[i] @ t[j] - t[i] @ t[j] + 1e-6) ** 2 for i, j in pairs]) / 8
        by_hand["relational_ss"] += 3 * np.mean([(s[i] @ s[j] - t[i] @ t[j] + 1e-6) ** 2 for i, j in pairs]) / 8
    assert {name: float(part) for name, part in parts.items()} == pytest.approx(by_hand)


def test_raml_never_compares_different_images():
    student, teacher = inputs("raml")
    alone = torch.stack([value("raml", student[i : i + 1], teacher[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(value("raml", student, teacher), alone.mean())
    torch.testing.assert_close(value("raml", student, teacher, reduction="sum"), alone.sum())


def test_parts_without_weight_are_left_out():
    student, teacher = inputs("raml")
    assert list(raml(student, teacher, lam_ts=0, lam_ss=1)) == ["absolute", "relational_ss"]
    assert list(raml(student[:, 0], teacher[:, 0], lam_ts=0, lam_ss=0)) == ["absolute"]
    assert list(distillation_loss("rkd", student, teacher, angle_weight=0.0)) == ["distance"]


def test_losses_of_images_take_views_as_images():
    student, teacher = inputs("raml")
    for name in ("fitnet", "aml_contrastive"):
        flat = distillation_loss(name, student.flatten(0, 1), teacher.flatten(0, 1), labels=LABELS.repeat_interleave(4))
        assert value(name, student, teacher) == flat[name]


def test_batch_contrastive_is_the_loss_of_the_tuples_that_the_teacher_picks():
    student, teacher = inputs("aml_contrastive")
    similarity = teacher @ teacher.T
    for name, own in (("aml_contrastive", False), ("aml_contrastive_plus", True)):
        expected = []
        for i in range(8):
            positives = [j for j in range(8) if LABELS[j] == LABELS[i] and (own or j != i)]
            others = sorted((j for j in range(8) if LABELS[j] != LABELS[i]), key=lambda j: -similarity[i, j])
            expected.append(
                asymmetric_contrastive(student[i : i + 1], teacher[None, positives], teacher[None, others[:3]])
            )
        torch.testing.assert_close(value(name, student, teacher, negatives=3), torch.stack(expected).mean())


def test_a_class_that_fills_the_batch_has_no_negatives():
    student, teacher = inputs("aml_contrastive")
    loss = distillation_loss("aml_contrastive", student, teacher, labels=torch.zeros(8, dtype=torch.long))
    assert loss["aml_contrastive"].isfinite()


def test_dark_rank_is_least_for_the_teachers_order():
    teacher = torch.tensor([[0.0, 1.0], [0.5, 0.8], [0.9, 0.4], [1.0, 0.0]], dtype=torch.float64)
    same = dark_rank(teacher, teacher, count=3)
    for order in ([1, 0, 2, 3], [3, 1, 2, 0], [0, 2, 1, 3]):
        assert dark_rank(teacher[order], teacher, count=3) > same


def test_the_weight_scales_every_part():
    student, teacher = inputs("d3still")
    once = distillation_loss("d3still", student, teacher, weight=1)
    for part, scalar in distillation_loss("d3still", student, teacher, weight=3).items():
        torch.testing.assert_close(scalar, 3 * once[part])


def test_bad_input():
    student, teacher = inputs("fitnet")
    with pytest.raises(UserError, match="did you mean 'd3still'"):
        distillation_loss("d3stil", student, teacher)
    with pytest.raises(UserError, match=r"csd\.topk.*did you mean 'top_k'"):
        distillation_loss("csd", student, teacher, topk=5)
    with pytest.raises(UserError, match="needs labels"):
        distillation_loss("aml_contrastive", student, teacher)
    with pytest.raises(UserError, match="two views"):
        distillation_loss("raml", student, teacher)
