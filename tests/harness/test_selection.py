import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.training.selection import Selection
from subnetbench.harness.training.state import SelectionState


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.booleans(), st.integers(1, 4))
def test_keeps_the_first_best_and_stops_after_waiting(values, higher, patience):
    selection = Selection(patience, higher)
    for count, value in enumerate(values, start=1):
        improved = selection.update(value)
        so_far = values[:count]
        best = max(so_far) if higher else min(so_far)
        assert selection.best_value == best
        assert selection.best_index == so_far.index(best)
        assert improved == (so_far.index(best) == count - 1)
        assert selection.should_stop == (count - 1 - so_far.index(best) >= patience)


def test_without_patience_it_never_stops():
    selection = Selection()
    for _ in range(1000):
        selection.update(0.0)
    assert not selection.should_stop


def test_nan_is_never_the_best():
    selection = Selection(patience=2)
    assert not selection.update(math.nan)
    assert selection.best_index is None
    assert selection.update(0.1)
    assert not selection.update(math.nan)
    assert not selection.update(math.nan)
    assert selection.best_index == 1
    assert selection.should_stop


def test_resumes_from_a_saved_state():
    first, second = Selection(patience=3), Selection(patience=3)
    for value in (0.2, 0.5, 0.4):
        first.update(value)
    second.state = SelectionState(**json.loads(json.dumps(vars(first.state))))
    for value in (0.5, 0.1):
        assert first.update(value) == second.update(value)
    assert first.should_stop == second.should_stop
    assert second.should_stop
    assert second.best_index == 1


def test_patience_of_zero_is_refused():
    with pytest.raises(UserError, match="patience"):
        Selection(patience=0)
