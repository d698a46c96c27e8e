"""Combining the gradients of several losses that conflict: by capacity (PrunNet) or by width (SwitchNet).

Every rule here gives a linear combination of the gradients whose coefficients depend on their inner products alone,
so one pass over the gradients yields the products, arithmetic on small matrices the coefficients, and a second pass
the result. Neither pass waits for the device.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from subnetbench.harness.method import UserError, unknown

IntegrationRule = Literal["conflict_aware", "sum", "pcgrad"]
INTEGRATION_RULES: tuple[IntegrationRule, ...] = ("conflict_aware", "sum", "pcgrad")

EPSILON = 1e-8

RowScale = Callable[[slice], Tensor]
"""Gives the rows of a tensor that a slice asks for; it is made piece by piece, where it is needed."""

# How many elements of each gradient are handled at a time.
_CPU_PIECE, _GPU_PIECE = 1 << 18, 1 << 22
# Gradients of small tensors can be opposed almost exactly, and what is left of them after the projection is then lost
# in single precision.
_DOUBLE_BELOW = 1 << 18


@dataclass(frozen=True)
class Integration:
    """What conflict-aware integration did to n gradients of one tensor with `groups` groups.

    `coefficients` (groups, n): the result is, in each group, the sum of the gradients times these.
    `weights` (n): the share of each projected gradient. `partners` and `steps` (groups, n): gradient i lost
    steps[o, i] times gradient partners[o, i] in group o; the step is 0 where it was in no conflict.
    """

    coefficients: Tensor
    weights: Tensor
    partners: Tensor
    steps: Tensor


def row_products(gradients: Sequence[Tensor], scale: RowScale | None = None) -> list[Tensor]:
    """Inner products of n gradients of one tensor, row by row: one (rows, n, n).

    Rows are the slices along the first axis; a vector is one row. With `scale` a second one follows, of the
    gradients multiplied with it elementwise. In double precision for small tensors.
    """
    layout = layout_of(gradients[0])
    rows = [as_rows(gradient, layout) for gradient in gradients]
    count, n = len(rows[0]), len(rows)
    dtype = torch.float64 if rows[0].numel() < _DOUBLE_BELOW else rows[0].dtype
    products = [rows[0].new_empty(count, n, n, dtype=dtype) for _ in range(1 if scale is None else 2)]
    for cut, stack in stacks(rows, overwritten=scale is not None):
        for i, target in enumerate(products):
            if i == 1 and scale is not None:
                stack *= scale(cut)
            by_row = stack.to(dtype).transpose(0, 1)
            torch.bmm(by_row, by_row.transpose(1, 2), out=target[cut])
    return products


def combine_in_place(
    gradients: Sequence[Tensor], coefficients: Tensor, scaled: tuple[Tensor, RowScale] | None = None
) -> list[Tensor]:
    """The sum of n gradients of one tensor times `coefficients`, (rows, n) or (1, n), written over the first.

    With `scaled`, other coefficients and a scale, a second result is written over the second gradient: the sum
    with these coefficients, times the scale elementwise. The gradients have one memory layout (`layout_of`).
    """
    layout = layout_of(gradients[0])
    rows = [as_rows(gradient, layout) for gradient in gradients]
    plans = [coefficients] if scaled is None else [coefficients, scaled[0]]
    for cut in pieces(rows[0]):
        sums = []
        for plan in plans:
            factors = (plan[cut] if len(plan) > 1 else plan).to(rows[0].dtype)
            total = rows[0][cut] * factors[:, :1]
            for i, gradient in enumerate(rows[1:], start=1):
                total.addcmul_(gradient[cut], factors[:, i : i + 1])
            sums.append(total)
        rows[0][cut] = sums[0]
        if scaled is not None:
            torch.mul(sums[1], scaled[1](cut), out=rows[1][cut])
    return list(gradients[: len(plans)])


def draw_orders(n: int, by_row: Sequence[bool], generator: torch.Generator) -> Tensor:
    """Random orders of n gradients for several tensors: (tensors, n, n), row i is for gradient i.

    There are as many tensors as `by_row` has entries; where it is true all rows are equal, as in the official code.
    On the generator's device.
    """
    keys = torch.rand(len(by_row), n, n, generator=generator, device=generator.device)
    shared = torch.tensor(by_row, device=generator.device).view(-1, 1, 1)
    return torch.where(shared, keys[:, :1], keys).argsort(dim=-1)


def conflict_aware(
    products: Sequence[Tensor],
    orders: Tensor,
    by_row: Sequence[bool],
    *,
    exponent: float = 0.5,
    use_dot: bool = False,
) -> list[Integration]:
    """PrunNet's conflict-aware integration of n gradients of several tensors (Sun et al. 2025), as its code has it.

    `products` holds one (rows, n, n) a tensor. With `by_row` the rows of a tensor are projected each on its own,
    otherwise the tensor as a whole. `orders` is (tensors, n, n): of the gradients that gradient i conflicts with
    (negative inner product), it is made orthogonal to the one that comes last in orders[tensor, i]. A gradient's
    share is ((cos(projected, original) + 1) / 2)^exponent, normalised over the n; with `use_dot` the inner product
    replaces the cosine. Without any conflict the result is the plain sum.
    """
    groups = [
        matrix if rows else matrix.sum(dim=0, keepdim=True) for matrix, rows in zip(products, by_row, strict=True)
    ]
    sizes = [len(matrix) for matrix in groups]
    gram = torch.cat([matrix.double() for matrix in groups])
    n, device = gram.shape[-1], gram.device
    tensor_of = torch.arange(len(sizes), device=device).repeat_interleave(
        torch.tensor(sizes, device=device), output_size=len(gram)
    )
    # As a matrix product the sums over a tensor's groups come out the same in every run, on a GPU too.
    membership = one_hot(tensor_of, len(sizes)).T.to(gram)

    rank = orders.to(gram.device).argsort(dim=-1)[tensor_of]
    last = torch.where(gram < 0, rank, -1).max(dim=-1)
    partners = last.indices
    squares = gram.diagonal(dim1=1, dim2=2)
    with_partner = gram.gather(2, partners.unsqueeze(2)).squeeze(2)
    partner_squares = squares.gather(1, partners)
    steps = torch.where(last.values >= 0, with_partner / (partner_squares + EPSILON), 0.0)

    agreement = _agreement(membership, squares, with_partner, partner_squares, steps, use_dot=use_dot)
    shares = ((agreement + 1) / 2) ** exponent
    weights = shares / (shares.sum(dim=1, keepdim=True) + EPSILON)

    # p_i = g_i - step_i g_partner(i), hence g_j counts w_j, less what it took from those it was the partner of.
    taken = one_hot(partners, n).to(gram) * (weights[tensor_of] * steps).unsqueeze(2)
    coefficients = n * (weights[tensor_of] - taken.sum(dim=1))
    return [
        Integration(*parts)
        for parts in zip(
            torch.split(coefficients, sizes),
            weights.unbind(),
            torch.split(partners, sizes),
            torch.split(steps, sizes),
            strict=True,
        )
    ]


def _agreement(
    membership: Tensor, squares: Tensor, with_partner: Tensor, partner_squares: Tensor, steps: Tensor, *, use_dot: bool
) -> Tensor:
    """Cosine, or inner product, of each projected gradient with the original, over all groups of a tensor."""
    kept = membership @ (squares - steps * with_partner)
    if use_dot:
        return kept
    lengths = (membership @ (squares - 2 * steps * with_partner + steps**2 * partner_squares)).clamp(min=0).sqrt()
    originals = (membership @ squares).sqrt()
    return (kept / (lengths.clamp(min=EPSILON) * originals.clamp(min=EPSILON))).clamp(0, 1)


def integrate_in_place(
    stacks: Sequence[Sequence[Tensor]],
    orders: Tensor | None,
    *,
    by_row: Sequence[bool],
    scales: Sequence[RowScale | None] | None = None,
    rule: IntegrationRule = "conflict_aware",
    exponent: float = 0.5,
    use_dot: bool = False,
) -> list[list[Tensor]]:
    """Integrate the n gradients of each of several tensors; the results are written over the first ones.

    A tensor with a scale has two results, as in `combine_in_place`, and takes two turns, one after the other.

    Args:
        stacks: The n gradients of each tensor, of one memory layout.
        orders: Orders in which conflicts are resolved: (turns, n, n) for `conflict_aware`, (n, n) for `pcgrad`.
        by_row: One entry a tensor: whether `conflict_aware` treats its rows each on its own.
        scales: One entry a tensor: what the second result is multiplied with; None: no second result.
        rule: `conflict_aware` treats every turn on its own (Sun et al. 2025); `pcgrad` treats all turns as one flat
            vector and adds the projected gradients up (Yu et al. 2020); `sum` adds the gradients up.
        exponent: `conflict_aware`: how much less a gradient counts that had to be bent.
        use_dot: `conflict_aware`: compare a bent gradient with itself by inner product instead of cosine.

    Raises:
        UserError: For an unknown rule, or one that needs orders and has none.
    """
    n, coefficients = len(stacks[0]), list[Tensor]()
    scales = [None] * len(stacks) if scales is None else scales
    turns = [1 if scale is None else 2 for scale in scales]
    if rule == "sum":
        coefficients = [stacks[0][0].new_ones(1, n)] * sum(turns)
    elif rule not in INTEGRATION_RULES:
        raise unknown("integration rule", rule, INTEGRATION_RULES)
    elif orders is None:
        raise UserError("needs visiting orders", field="rule", value=rule)
    else:
        products = [turn for stack, scale in zip(stacks, scales, strict=True) for turn in row_products(stack, scale)]
        if rule == "pcgrad":
            gram = torch.stack([matrix.double().sum(dim=0) for matrix in products]).sum(dim=0)
            coefficients = [pcgrad(gram, orders).sum(dim=0, keepdim=True)] * len(products)
        else:
            in_rows = [rows for rows, count in zip(by_row, turns, strict=True) for _ in range(count)]
            plans = conflict_aware(products, orders, in_rows, exponent=exponent, use_dot=use_dot)
            coefficients = [plan.coefficients for plan in plans]
    turn = iter(coefficients)
    return [
        combine_in_place(stack, next(turn), None if scale is None else (next(turn), scale))
        for stack, scale in zip(stacks, scales, strict=True)
    ]


def pcgrad(gram: Tensor, orders: Tensor) -> Tensor:
    """Coefficients of PCGrad (Yu et al. 2020): (n, n), row i gives projected gradient i from the n originals.

    `gram` (n, n) holds the inner products of the whole gradients. Gradient i visits the others in the order
    `orders[i]` and each time loses its component along one it conflicts with, the earlier projections included.
    """
    n = len(gram)
    gram = gram.double()
    coefficients = torch.eye(n, dtype=gram.dtype, device=gram.device)
    visits = one_hot(orders.to(gram.device), n).to(gram)
    for visited in visits.unbind(dim=1):
        # Row i is gradient i's present visit: all gradients take their next step at once.
        conflict = ((coefficients @ gram) * visited).sum(dim=1).clamp(max=0)
        squares = (visited * gram.diagonal()).sum(dim=1)
        step = torch.where(conflict < 0, conflict / squares, 0.0)
        coefficients = coefficients - step.unsqueeze(1) * visited
    return coefficients


def layout_of(tensor: Tensor) -> torch.memory_format:
    """Channels-last if the tensor is so laid out, else contiguous."""
    if tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def as_rows(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    """(rows, length), a view of a tensor in `layout`; the order within a row is that of the memory."""
    if layout is torch.channels_last:
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(tensor.shape[0], -1) if tensor.dim() > 1 else tensor.reshape(1, -1)


def stacks(rows: Sequence[Tensor], *, overwritten: bool) -> Iterator[tuple[slice, Tensor]]:
    """Pieces of n tensors (count, length) as one tensor (n, rows, length) each, and where they are cut out.

    Each holds until the next. Where the tensors lie one behind the other in memory, nothing is copied, unless the
    pieces are to be `overwritten`.
    """
    whole = None if overwritten else one_behind_the_other(rows)
    if whole is not None:
        yield from ((cut, whole[:, cut]) for cut in pieces(rows[0]))
        return
    count, length = rows[0].shape
    buffer = rows[0].new_empty(len(rows), min(rows_at_a_time(rows[0]), count), length)
    for cut in pieces(rows[0]):
        stack = buffer[:, : min(cut.stop, count) - cut.start]
        for target, row in zip(stack, rows, strict=True):
            target.copy_(row[cut])
        yield cut, stack


def one_behind_the_other(rows: Sequence[Tensor]) -> Tensor | None:
    """(n, count, length): n tensors (count, length) as one, without a copy, if that is how they lie in memory."""
    first, size = rows[0], rows[0].numel()
    regular = all(
        row.is_contiguous()
        and row.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        and row.storage_offset() == first.storage_offset() + i * size
        for i, row in enumerate(rows)
    )
    return first.as_strided((len(rows), *first.shape), (size, *first.stride())) if regular else None


def rows_at_a_time(rows: Tensor) -> int:
    """How many rows of (count, length) make a piece: on a CPU few enough that several gradients stay in cache."""
    return max(1, (_CPU_PIECE if rows.is_cpu else _GPU_PIECE) // max(1, rows.shape[1]))


def pieces(rows: Tensor) -> Iterator[slice]:
    """Slices of rows that together cover (count, length)."""
    step = rows_at_a_time(rows)
    return (slice(start, start + step) for start in range(0, len(rows), step))
