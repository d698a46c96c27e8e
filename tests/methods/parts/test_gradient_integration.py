import pytest
import torch
from torch import Tensor

from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.capacity.integration import (
    combine_in_place,
    conflict_aware,
    draw_orders,
    integrate_in_place,
    pcgrad,
    row_products,
)


def integrated_by_definition(gradients, order, by_row, exponent, use_dot) -> Tensor:
    """The rule as it is stated: loops over gradients, groups and partners, in double precision."""
    gradients = [g.double() for g in gradients]
    n = len(gradients)
    projected = []
    for i in range(n):
        result = gradients[i].clone()
        groups = range(len(result)) if by_row else [slice(None)]
        for group in groups:
            for j in order[i].tolist():
                own, other = gradients[i][group], gradients[j][group]
                if (own * other).sum() < 0:
                    result[group] = own - (own * other).sum() / ((other**2).sum() + 1e-8) * other
        projected.append(result)
    quality = []
    for p, g in zip(projected, gradients, strict=True):
        if use_dot:
            quality.append(((p * g).sum() + 1) / 2)
        else:
            quality.append((torch.cosine_similarity(p.flatten(), g.flatten(), dim=0, eps=1e-8) + 1) / 2)
    shares = torch.stack(quality) ** exponent
    shares = shares / (shares.sum() + 1e-8)
    return n * sum(share * p for share, p in zip(shares, projected, strict=True))


def problem(seed: int, shape: tuple[int, ...], n: int, similar: float) -> tuple[list[Tensor], Tensor]:
    """Gradients with a common part, and a random visiting order for each."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(shape, generator=generator)
    gradients = [similar * common + torch.randn(shape, generator=generator) for _ in range(n)]
    return gradients, draw_orders(n, [False], generator)[0]


@pytest.mark.parametrize("use_dot", [False, True])
@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (5, 7), (9,), (3, 1)])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_integration_by_products_is_integration_by_definition(n, shape, by_row, use_dot):
    by_row = by_row and len(shape) > 1
    for seed, similar in enumerate((0.0, 0.3, 1.0, -1.0)):
        gradients, order = problem(seed, shape, n, similar)
        expected = integrated_by_definition(gradients, order, by_row, 0.5, use_dot)
        ((found,),) = integrate_in_place(
            [[g.clone() for g in gradients]], order.unsqueeze(0), by_row=[by_row], use_dot=use_dot
        )
        largest = max(g.abs().max().item() for g in gradients)
        assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-6 * largest)


def test_what_is_left_of_opposed_gradients_decides_their_share():
    """One row of two gradients is exactly opposed; only what remains of the others gives the projection a direction."""
    gradients = [
        torch.tensor([[3.0, -1.0], [1e-3, 2e-3]]),
        torch.tensor([[-1.5, 0.5], [2e-3, 3e-3]]),
        torch.tensor([[1.0, 2.0], [-1e-3, 1e-3]]),
    ]
    order = torch.tensor([[0, 1, 2]] * 3)
    expected = integrated_by_definition(gradients, order, True, 1.0, False)
    ((found,),) = integrate_in_place([gradients], order.unsqueeze(0), by_row=[True], exponent=1.0)
    assert torch.allclose(found.double(), expected, rtol=1e-5, atol=1e-7)


def test_without_conflict_gradients_are_added():
    gradients = [torch.rand(4, 3, 2, 2) for _ in range(3)]
    total = sum(gradients)
    orders = draw_orders(3, [True], torch.Generator())
    ((found,),) = integrate_in_place([gradients], orders, by_row=[True])
    assert torch.allclose(found, total, rtol=1e-5)


def test_the_scaled_result_is_that_of_scaled_gradients():
    gradients, _ = problem(1, (6, 5, 3, 3), 3, 0.2)
    scale = torch.randn(6, 5, 3, 3)
    orders = draw_orders(3, [True, True], torch.Generator())
    scale_rows = scale.flatten(1)
    ((plain, scaled),) = integrate_in_place(
        [[g.clone() for g in gradients]], orders, by_row=[True], scales=[lambda cut: scale_rows[cut]]
    )
    ((alone,),) = integrate_in_place([[g.clone() for g in gradients]], orders[:1], by_row=[True])
    ((scaled_alone,),) = integrate_in_place([[g * scale for g in gradients]], orders[1:], by_row=[True])
    assert torch.allclose(plain, alone, atol=1e-6)
    assert torch.allclose(scaled, scaled_alone, atol=1e-5)


def test_tensors_are_integrated_each_on_its_own():
    one, order_of_one = problem(2, (4, 3, 3, 3), 3, 0.0)
    other, order_of_other = problem(3, (8,), 3, 0.0)
    copies = [[g.clone() for g in one], [g.clone() for g in other]]
    together = integrate_in_place(copies, torch.stack([order_of_one, order_of_other]), by_row=[True, False])
    for gradients, order, by_row, (found,) in (
        (one, order_of_one, True, together[0]),
        (other, order_of_other, False, together[1]),
    ):
        assert torch.allclose(found.double(), integrated_by_definition(gradients, order, by_row, 0.5, False), atol=1e-5)


def test_large_tensors_come_out_as_in_one_piece():
    """More rows than are handled at a time, in single precision."""
    gradients, order = problem(4, (700, 600), 3, 0.1)
    assert gradients[0].numel() > 1 << 18
    expected = integrated_by_definition(gradients, order, False, 0.5, False)
    ((found,),) = integrate_in_place([gradients], order.unsqueeze(0), by_row=[False])
    assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_channels_last_gradients_give_the_same_in_their_layout():
    gradients, order = problem(5, (6, 4, 3, 3), 3, 0.0)
    expected = integrated_by_definition(gradients, order, True, 0.5, False)
    laid_out = [g.to(memory_format=torch.channels_last) for g in gradients]
    ((found,),) = integrate_in_place([laid_out], order.unsqueeze(0), by_row=[True])
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found.double(), expected, atol=1e-5)


def test_results_take_the_place_of_the_first_gradients():
    gradients, order = problem(6, (4, 3), 2, 0.0)
    ((found,),) = integrate_in_place([gradients], order.unsqueeze(0), by_row=[False])
    assert found is gradients[0]


def test_the_plan_says_what_was_projected_on_what():
    opposed = [torch.tensor([[1.0, 0.0]]), torch.tensor([[-2.0, 1.0]])]
    (plan,) = conflict_aware(row_products(opposed), torch.tensor([[[0, 1], [0, 1]]]), [True])
    assert plan.partners.tolist() == [[1, 0]]
    assert plan.steps[0].tolist() == pytest.approx([-0.4, -2.0])
    assert plan.weights.tolist() == pytest.approx([0.5, 0.5])
    assert torch.allclose(combine_in_place(opposed, plan.coefficients)[0], torch.tensor([[0.2, 1.4]]))


def pcgrad_by_definition(gradients: list[Tensor], orders: Tensor) -> Tensor:
    projected = []
    for i, gradient in enumerate(gradients):
        result = gradient.double().clone()
        for j in orders[i].tolist():
            other = gradients[j].double()
            if (product := result @ other) < 0:
                result = result - product / other.square().sum() * other
        projected.append(result)
    return torch.stack(projected)


def test_pcgrad_by_products_is_pcgrad_by_definition():
    for seed in range(5):
        gradients, orders = problem(seed, (12,), 4, -0.2)
        gram = torch.stack(gradients) @ torch.stack(gradients).T
        found = pcgrad(gram, orders) @ torch.stack(gradients).double()
        assert torch.allclose(found, pcgrad_by_definition(gradients, orders), atol=1e-5)


def test_rules_over_all_tensors():
    one, orders = problem(7, (4, 3), 3, -0.3)
    other, _ = problem(8, (5,), 3, -0.3)
    flat = [torch.cat([a.flatten(), b]) for a, b in zip(one, other, strict=True)]
    expected = pcgrad_by_definition(flat, orders).sum(dim=0).float()
    copies = [[g.clone() for g in one], [g.clone() for g in other]]
    (first,), (second,) = integrate_in_place(copies, orders, by_row=[False, False], rule="pcgrad")
    assert torch.allclose(torch.cat([first.flatten(), second]), expected, atol=1e-5)
    total = sum(one)
    ((added,),) = integrate_in_place([one], None, by_row=[False], rule="sum")
    assert torch.allclose(added, total, atol=1e-6)


def test_orders_are_shared_by_row_or_drawn_for_each_gradient():
    orders = draw_orders(5, [True, False, True], torch.Generator().manual_seed(1))
    assert orders.shape == (3, 5, 5)
    assert torch.equal(orders.sort(dim=-1).values, torch.arange(5).expand(3, 5, 5))
    assert [(rows == rows[0]).all().item() for rows in orders] == [True, False, True]
    assert not torch.equal(orders[0, 0], orders[2, 0])
    assert torch.equal(orders, draw_orders(5, [True, False, True], torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(("rule", "match"), [("conflict_aware", "orders"), ("pcgrad", "orders"), ("mean", "no inte")])
def test_what_cannot_be_integrated_is_refused(rule, match):
    with pytest.raises(UserError, match=match):
        integrate_in_place([[torch.ones(2), torch.ones(2)]], None, by_row=[False], rule=rule)
