import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard.where import names_in, select

COLUMNS = {
    "sparsity": np.array([0.1, 0.5, np.nan, 0.9]),
    "seeds": np.array([1, 2, 3, 4]),
    "tuned": np.array([True, False, True, False]),
    "method": np.array(["a", "b", "c", "a"]),
    "config.lr": np.array([0.1, np.nan, 0.3, 0.4]),
}


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("sparsity >= 0.5", [1, 3]),
        ("sparsity != 0.5", [0, 3]),
        ("not sparsity >= 0.5", [0, 2]),
        ("0.1 < sparsity <= 0.9", [1, 3]),
        ("sparsity > -1", [0, 1, 3]),
        ("sparsity in (0.1, 0.9)", [0, 3]),
        ("sparsity not in (0.1, 0.9)", [1]),
        ("method in ['a', 'b']", [0, 1, 3]),
        ("method not in {'a'}", [1, 2]),
        ("'b' == method", [1]),
        ("method < 'b'", [0, 3]),
        ("tuned", [0, 2]),
        ("not tuned and seeds >= 3", [3]),
        ("tuned == False", [1, 3]),
        ("tuned and sparsity > 0 or method == 'b'", [0, 1]),
        ("config.lr < 0.35", [0, 2]),
        ("sparsity < config.lr", []),
        ("  seeds==2 ", [1]),
        ("1 == 1", [0, 1, 2, 3]),
    ],
)
def test_expressions(expression: str, rows: list[int]) -> None:
    assert np.flatnonzero(select(expression, COLUMNS, 4)).tolist() == rows


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "sparsity",
        "sparsity >",
        "sparsity = 0.5",
        "sparsity + 1 > 2",
        "method == 3",
        "seeds == 'two'",
        "missing > 1",
        "sparsity is None",
        "method in 'abc'",
        "method in method",
        "-method == 'a'",
        "__import__('os').system('true')",
        "().__class__",
        "[x for x in (1,)]",
        "(lambda: True)()",
        "sparsity.__class__ > 1",
        "tuned if tuned else tuned",
        "f'{method}' == 'a'",
        "method == b'a'",
        "sparsity > 1j",
        "seeds > " + "9" * 400,
        "sparsity > 1e999",
        "sparsity >= 0.5\nimport os",
        "\x00",
        "not " * 400 + "tuned",
        "(" * 900 + "tuned" + ")" * 900,
        "a." * 900 + "b > 1",
        "tuned and " * 1000 + "tuned",
    ],
)
def test_anything_else_is_refused(expression: str) -> None:
    if expression.startswith("not not"):  # deep, but in the language
        assert select(expression, COLUMNS, 4).tolist() == [True, False, True, False]
        return
    with pytest.raises(UserError, match="where"):
        select(expression, COLUMNS, 4)


@given(st.text(max_size=60))
def test_no_text_does_anything_but_select_or_raise_a_user_error(expression: str) -> None:
    try:
        assert select(expression, COLUMNS, 4).shape == (4,)
        names_in(expression)
    except UserError:
        pass


def test_names() -> None:
    assert names_in("sparsity > 0.5 and config.lr < 1") == {"sparsity", "config", "config.lr"}


def test_misspelt_names_get_a_hint() -> None:
    with pytest.raises(UserError, match="did you mean 'sparsity'"):
        select("sparcity > 1", COLUMNS, 4)
