"""The cost model of cascades: published worked examples, and consistency of the formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from published.cascade_timing import cold_query_speedup, middle_width, timing_report
from published.macs import encoder_macs, vit_macs
from subnetbench.harness.core.errors import UserError
from subnetbench.methods.parts.text_image import cost
from subnetbench.methods.parts.vit.macs import macs_per_head

VIT_B16 = {"width": 768, "head_width": 64, "heads": [12] * 12, "neurons": [3072] * 12}
GMACS = {
    "B/16": vit_macs(patches=196, patch_values=768, embedding=512, **VIT_B16) / 1e9,
    "B/32": vit_macs(patches=49, patch_values=3072, embedding=512, **VIT_B16) / 1e9,
    "MobileNetV3-S": 0.055,
    "ResNet34": 3.66,
}
positive = st.floats(1e-3, 1e3)
fraction = st.floats(0, 1)


def test_analytic_macs_of_clip_vits():
    assert GMACS["B/16"] == pytest.approx(17.56, abs=0.005)
    assert GMACS["B/32"] == pytest.approx(4.41, abs=0.005)
    large = vit_macs(
        patches=256,
        patch_values=3 * 14 * 14,
        width=1024,
        head_width=64,
        heads=[16] * 24,
        neurons=[4096] * 24,
        embedding=768,
    )
    assert large / 1e9 == pytest.approx(81.0, abs=0.05)


@pytest.mark.parametrize(("first", "speedup"), [("B/32", 2.85), ("MobileNetV3-S", 9.7), ("ResNet34", 3.2)])
def test_expected_lifetime_speedups_over_b16(first, speedup):
    found = cost.lifetime_speedup([GMACS["B/16"]], [GMACS[first], GMACS["B/16"]], 0.1)
    assert found == pytest.approx(speedup, abs=0.05)


@pytest.mark.parametrize(("removed", "speedup"), [(132, 1.30), (77, 1.10), (22, 0.96)])
def test_pruned_heads_as_a_first_level(removed, speedup):
    dense = encoder_macs(197, **VIT_B16)
    pruned = dense - removed * macs_per_head(197, 768, 64)
    assert cost.lifetime_speedup([dense], [pruned, dense], 0.1) == pytest.approx(speedup, abs=0.005)


@pytest.mark.parametrize(("kept", "ratio"), [(147, 0.744), (145, 0.733), (98, 0.492), (50, 0.251), (49, 0.246)])
def test_masked_encoders_compute_less_than_in_proportion(kept, ratio):
    assert encoder_macs(kept + 1, **VIT_B16) / encoder_macs(197, **VIT_B16) == pytest.approx(ratio, abs=5e-4)


@pytest.mark.parametrize(("kept", "complement", "published", "honest"), [(98, 98, 1.85, 1.69), (50, 145, 3.08, 2.85)])
def test_masking_is_worth_less_when_the_second_level_is_counted_in_full(kept, complement, published, honest):
    dense, first, second = (encoder_macs(n + 1, **VIT_B16) for n in (196, kept, complement))
    assert cost.lifetime_speedup([dense], [first, second], 0.1) == pytest.approx(published, abs=0.005)
    assert cost.lifetime_speedup([dense], [first, dense], 0.1) == pytest.approx(honest, abs=0.005)


@given(positive, positive, st.floats(0.01, 1))
def test_two_levels_pay_exactly_below_the_break_even(cheap, expensive, f):
    speedup = cost.lifetime_speedup([expensive], [cheap, expensive], f)
    assert speedup == pytest.approx(expensive / (cheap + f * expensive), rel=1e-12)
    assert speedup < 1 / f
    if abs(cheap / expensive - (1 - f)) > 1e-9:
        assert (speedup > 1) == (cheap / expensive < 1 - f)


@given(st.lists(positive, min_size=1, max_size=4), fraction, st.integers(1, 10**6))
def test_one_f_is_an_upper_bound_of_measured_fractions(costs, f, images):
    measured = [1.0, *(f / (level + 1) for level in range(len(costs) - 1))]
    bound, found = cost.lifetime_cost(costs, f, images), cost.lifetime_cost(costs, measured, images)
    assert found <= bound * (1 + 1e-12)
    assert bound == pytest.approx(images * (costs[0] + f * sum(costs[1:])), rel=1e-12)


def test_a_third_level_halves_a_cold_query():
    width = middle_width(50, 1, 3.3)
    assert round(width) == 10
    assert cost.depth_speedup([0.1, 1, 3.3], [50, 10]) == pytest.approx(1.99, abs=0.005)
    assert cost.depth_speedup([0.1, 1, 3.3], [50, width]) == pytest.approx(2)


def test_a_single_level_has_no_cold_query_to_compare():
    assert cold_query_speedup([3.0], [], [1.0, 3.0], [50]) is None
    assert cold_query_speedup([1.0], [], [1.0], []) is None
    assert cold_query_speedup([1.0, 4.0], [50], [1.0, 2.0, 4.0], [50, 10]) == pytest.approx(200 / 140)


def test_report_says_where_there_is_nothing_to_compare():
    report = timing_report([[2.0, 2.0]], [[1.0, 1.0]], 10, 0.1)
    assert report.lifetime == (2.0, 2.0)
    assert report.query is None
    assert report.lines[-1] == "Per-query speedup:n/a"
    with pytest.raises(ZeroDivisionError):
        timing_report([[2.0, 2.0]], [[1.0, 1.0]], 10, 0.1, published=True)


@given(st.lists(st.tuples(positive, positive, positive), min_size=1, max_size=5), st.floats(0.01, 1))
def test_speedups_from_times_equal_the_formula(seconds, f):
    expensive, first, second = np.array(seconds).T
    report = timing_report([expensive], [first, second], 7, f, m=[50])
    np.testing.assert_allclose(report.lifetime, expensive / (first + f * second), rtol=1e-12)


def test_bad_input_is_named():
    with pytest.raises(UserError, match="fractions"):
        cost.lifetime_cost([1, 2], [0.5, 0.1])
    with pytest.raises(UserError, match="fractions"):
        cost.lifetime_cost([1, 2], 1.5)
    with pytest.raises(UserError, match="baseline_fractions"):
        cost.lifetime_speedup([1, 2], [1, 2], [1, 0.1])
    with pytest.raises(UserError, match="m:"):
        cost.cold_query_cost([1, 2], [])
    with pytest.raises(UserError, match="two levels"):
        cost.depth_speedup([1], [])
    with pytest.raises(UserError, match="latenc"):
        cost.percentiles([])


def test_percentiles_of_latencies():
    assert cost.percentiles(np.arange(101)) == {"median": 50.0, "p95": 95.0}
