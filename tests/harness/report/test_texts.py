"""Numbers and texts on their way into the report."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subnetbench.harness.report.texts import clean_lines, cleaned, significant, significant_row


@settings(deadline=None)
@given(st.lists(st.floats(width=32), max_size=5), st.integers(3, 7))
def test_rows_are_rounded_as_single_numbers_are(values: list[float], digits: int) -> None:
    for value, rounded in zip(values, significant_row(values, digits), strict=True):
        if math.isfinite(value):
            assert rounded == pytest.approx(value, rel=10.0 ** (1 - digits), abs=1e-300)
            assert rounded == pytest.approx(significant(value, digits), rel=1.01 * 10.0 ** (1 - digits), abs=1e-300)
        else:
            assert rounded is None


def test_rounded_numbers_are_short() -> None:
    assert significant_row([0.1234567, 1 / 3, 123456.7, 2e-9, 0.0, -2.0], 5) == (
        *(0.12346, 0.33333, 123460.0, 2e-09, 0.0, -2.0),
    )
    assert max(len(str(value)) for value in significant_row([i / 997 for i in range(997)], 5)) <= 9


def test_texts_lose_what_moves_a_cursor_and_keep_the_rest() -> None:
    assert clean_lines("one\n\x1b[2Jtwo\tthree\r\nfour", 2) == "�[2Jtwo    three\nfour"
    assert clean_lines("one\ntwo", 0) == ""
    assert len(clean_lines("x" * 10_000, 5)) == 400
    assert cleaned({"a\x00": ["b\x1b", {"c": float("nan")}], "n": 1, "line": "x\ny"}) == {
        "a�": ["b�", {"c": None}],
        "n": 1,
        "line": "x\ny",
    }
