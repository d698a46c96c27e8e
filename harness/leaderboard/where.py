"""The filter language: `sparsity >= 0.8 and method in ("aslp", "supermask")`.

An expression is parsed as Python and then interpreted here, node by node; nothing is ever compiled or executed.
Allowed are names of columns and metrics (`config.lr` too), numbers, strings, True and False, comparisons,
`in`, `not in`, `and`, `or`, `not`. A row without a value for a name fails every comparison with it.
"""

import ast
import operator
from collections.abc import Callable, Mapping

import numpy as np

from subnetbench.harness.core.errors import UserError, nearest

MAX_LENGTH = 2000

Mask = np.ndarray
Operand = np.ndarray | str | float
"""A column (rows,), or a constant."""

_COMPARE: dict[type[ast.cmpop], Callable[[Operand, Operand], object]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def names_in(expression: str) -> set[str]:
    """The names that an expression mentions; raises `UserError` if it is not one."""
    return {name for node in ast.walk(_parse(expression)) if (name := _full_name(node))}


def _full_name(node: ast.AST) -> str:
    """`config.lr` for the node of that attribute, and "config" for the node inside it; "" for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def select(expression: str, columns: Mapping[str, np.ndarray], rows: int) -> Mask:
    """Which of `rows` rows satisfy the expression; `columns` are arrays (rows,) of numbers or of strings.

    Raises `UserError` for anything that is not in the language, and for names that are no column.
    """
    try:
        return _Filter(columns, rows).mask(_parse(expression))
    except RecursionError:
        raise UserError("nested too deeply", field="where") from None


def _parse(expression: str) -> ast.expr:
    if len(expression) > MAX_LENGTH:
        raise UserError(f"longer than {MAX_LENGTH} characters", field="where")
    try:
        return ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError("not an expression", field="where", value=expression[:200], allowed=_HELP) from None


_HELP = 'comparisons such as sparsity >= 0.8 and method in ("a", "b")'


def _refuse(node: ast.AST) -> UserError:
    return UserError(f"{type(node).__name__.lower()} is not allowed", field="where", allowed=_HELP)


class _Filter:
    def __init__(self, columns: Mapping[str, np.ndarray], rows: int) -> None:
        self.columns = columns
        self.rows = rows

    def mask(self, node: ast.expr) -> Mask:
        """The rows where a condition holds."""
        if isinstance(node, ast.BoolOp):
            combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return np.asarray(combine.reduce([self.mask(value) for value in node.values]))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.mask(node.operand)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Name | ast.Attribute):
            column = self._column(_full_name(node))
            if column.dtype == bool:
                return column
        raise _refuse(node)

    def _comparison(self, node: ast.Compare) -> Mask:
        mask = np.ones(self.rows, bool)
        sides = [node.left, *node.comparators]
        for sign, left, right in zip(node.ops, sides[:-1], sides[1:], strict=True):
            if isinstance(sign, ast.In | ast.NotIn):
                value = self._value(left)
                found = self._membership(value, right)
                mask &= (_known(value) & ~found) if isinstance(sign, ast.NotIn) else found
            elif type(sign) in _COMPARE:
                mask &= self._compare(self._value(left), self._value(right), _COMPARE[type(sign)])
            else:
                raise _refuse(sign)
        return mask

    def _membership(self, value: Operand, right: ast.expr) -> Mask:
        if not isinstance(right, ast.Tuple | ast.List | ast.Set):
            raise _refuse(right)
        mask = np.zeros(self.rows, bool)
        for element in right.elts:
            mask |= self._compare(value, self._value(element), operator.eq)
        return mask

    def _compare(self, left: Operand, right: Operand, sign: Callable[[Operand, Operand], object]) -> Mask:
        kinds = {_kind(left), _kind(right)}
        if kinds == {"text", "number"}:
            raise UserError("a text is compared with a number", field="where", allowed=_HELP)
        result = np.broadcast_to(np.asarray(sign(left, right), bool), self.rows)
        return np.asarray(result & _known(left) & _known(right))

    def _value(self, node: ast.expr) -> Operand:
        if isinstance(node, ast.Name | ast.Attribute):
            return self._column(_full_name(node))
        sign = -1 if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else 1
        constant = node.operand if isinstance(node, ast.UnaryOp) and sign < 0 else node
        if isinstance(constant, ast.Constant):
            if isinstance(constant.value, str) and sign > 0:
                return constant.value
            if isinstance(constant.value, bool | int | float) and abs(constant.value) < 1e308:
                return sign * float(constant.value)
        raise _refuse(node)

    def _column(self, name: str) -> np.ndarray:
        if name not in self.columns:
            guess = nearest(name, self.columns)
            hint = f"; did you mean {guess!r}?" if guess else ""
            known = ", ".join(sorted(self.columns))
            raise UserError(f"there is no column {name!r}{hint}", field="where", allowed=known)
        return self.columns[name]


def _known(value: Operand) -> np.ndarray | bool:
    return np.asarray(~np.isnan(value)) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else True


def _kind(value: Operand) -> str:
    if isinstance(value, np.ndarray):
        return "number" if value.dtype.kind in "fbiu" else "text"
    return "text" if isinstance(value, str) else "number"
