import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from subnetbench.harness.core import statistics

# Simulations use a fixed generator; the allowed deviation is four standard errors of a proportion.
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
    "heavy": lambda rng, shape: rng.standard_t(5, shape),
}

finite = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda x: round(x, 6))


def t_interval(values, confidence=0.95):
    """Student's interval of one sample, through the function that leaderboards call for all rows at once."""
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return statistics.Interval(float(sample.mean()) if len(sample) else np.nan, np.nan, np.nan, len(sample))
    half = float(statistics.t_half_width(sample.std(ddof=1), len(sample), confidence))
    return statistics.Interval(sample.mean(), sample.mean() - half, sample.mean() + half, len(sample))


def welch_t(a, b, confidence=0.95):
    rows = (np.asarray(sample, dtype=float)[None] for sample in (a, b))
    return statistics.welch_t_rows(*rows, confidence).comparison(0, "Welch t")


def samples(low: int, high: int) -> st.SearchStrategy[np.ndarray]:
    return st.integers(low, high).flatmap(lambda n: arrays(np.float64, n, elements=finite))


def _margin(rate: float, trials: int) -> float:
    return 4 * float(np.sqrt(rate * (1 - rate) / trials))


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_t_intervals_agree_with_scipy(n: int, confidence: float) -> None:
    rng = np.random.default_rng(n)
    for _ in range(20):
        a, b = rng.normal(0.3, 1, n), rng.normal(0, 2, n)
        ours = t_interval(a, confidence)
        assert (ours.low, ours.high) == pytest.approx(
            stats.t.interval(confidence, n - 1, a.mean(), stats.sem(a)), rel=1e-10
        )
        theirs = stats.ttest_rel(b, a)
        paired = statistics.paired_t(b - a, confidence)
        bounds = theirs.confidence_interval(confidence)
        assert paired.p == pytest.approx(theirs.pvalue, rel=1e-9)
        assert (paired.difference.low, paired.difference.high) == pytest.approx((bounds.low, bounds.high), rel=1e-9)
        c = rng.normal(0, 3, n + 3)
        theirs = stats.ttest_ind(c, a, equal_var=False)
        bounds = theirs.confidence_interval(confidence)
        welch = welch_t(a, c, confidence)
        assert welch.p == pytest.approx(theirs.pvalue, rel=1e-9)
        assert (welch.difference.low, welch.difference.high) == pytest.approx((bounds.low, bounds.high), rel=1e-9)


def test_half_widths_of_arrays_agree_with_single_ones() -> None:
    rng = np.random.default_rng(0)
    groups = [rng.normal(size=n) for n in (1, 2, 3, 9)]
    widths = statistics.t_half_width([g.std(ddof=1) if len(g) > 1 else 0 for g in groups], [1, 2, 3, 9])
    singles = [t_interval(g) for g in groups]
    assert np.isnan(widths[0])
    assert widths[1:] == pytest.approx([(i.high - i.low) / 2 for i in singles[1:]])


@pytest.mark.parametrize("n", [2, 3, 5, 8, 12])
def test_sign_flips_agree_with_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(10):
        differences = rng.normal(0.5, 1, n).round(1)  # rounded, so that there are ties
        theirs = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=False
        )
        assert statistics.sign_flip(differences).p == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 16])
def test_signed_ranks_agree_with_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(10):
        differences = rng.normal(0.5, 1, n)
        theirs = stats.wilcoxon(differences, method="exact").pvalue
        assert statistics.wilcoxon(differences).p == pytest.approx(theirs)


def test_signed_ranks_with_ties_and_zeros_are_exact() -> None:
    differences = np.array([0.0, 0.5, 0.5, -0.5, 1.0, 2.0])
    method = stats.PermutationMethod(n_resamples=np.inf)
    theirs = stats.wilcoxon(differences, zero_method="pratt", method=method).pvalue
    assert statistics.wilcoxon(differences).p == pytest.approx(theirs)


def test_many_pairs_are_sampled_close_to_the_exact_value() -> None:
    rng = np.random.default_rng(1)
    differences = rng.normal(0.4, 1, 30)
    flip, ranks = statistics.sign_flip(differences), statistics.wilcoxon(differences)
    assert flip.p == pytest.approx(statistics.paired_t(differences).p, abs=0.01)
    assert ranks.p == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue, abs=0.01)
    assert flip.p == statistics.sign_flip(differences).p


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_t_intervals_cover_and_tests_keep_their_level(n: int, name: str) -> None:
    """A difference of seeds has a symmetric distribution, as the difference of two equal ones always has."""
    trials = 4000
    differences = DISTRIBUTIONS[name](np.random.default_rng(n), (trials, n))
    means, widths = differences.mean(1), statistics.t_half_width(differences.std(1, ddof=1), np.full(trials, n))
    covered = np.mean(np.abs(means) <= widths)
    # Uniform values cost three seeds up to two points of coverage; heavy tails make intervals wider, not narrower.
    shortfall = 0.025 if name == "uniform" else 0.0
    assert covered >= 0.95 - shortfall - _margin(0.95, trials)
    rejected = [statistics.paired_t(row).p <= 0.05 for row in differences[:1000]]
    assert np.mean(rejected) <= 0.05 + shortfall + _margin(0.05, 1000)


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("test", [statistics.sign_flip, statistics.wilcoxon])
def test_permutation_tests_keep_their_level(
    n: int, test: Callable[[np.ndarray], statistics.Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "bootstrap_interval", lambda values, *_: t_interval(values))
    for name, draw in DISTRIBUTIONS.items():
        p_values = np.array([test(row).p for row in draw(np.random.default_rng(n), (1000, n))])
        for level in (0.05, 0.25):
            assert np.mean(p_values <= level) <= level + _margin(level, 1000), (name, level)


@pytest.mark.parametrize("n", [5, 10])
def test_bootstrap_intervals_cover(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SAMPLES", 30_000)
    statistics._resamples.cache_clear()
    rows = np.random.default_rng(n).normal(size=(400, n))
    intervals = [statistics.bootstrap_interval(row) for row in rows]
    statistics._resamples.cache_clear()
    assert np.mean([i.low <= 0 <= i.high for i in intervals]) >= 0.94 - _margin(0.95, 400)


def test_what_few_seeds_cannot_decide() -> None:
    assert statistics.smallest_sign_flip_p(3) == 0.25
    assert statistics.sign_flip([1.0, 2.0, 3.0]).p == 0.25
    assert statistics.wilcoxon([1.0, 2.0, 3.0]).p == 0.25
    assert statistics.smallest_sign_flip_p(6) < 0.05 < statistics.smallest_sign_flip_p(5)
    assert [n for n in range(1, 8) if statistics.bootstrap_reaches(n)] == [5, 6, 7]
    assert not statistics.bootstrap_reaches(5, 0.999)
    assert np.isnan(statistics.bootstrap_interval([1.0, 2.0, 3.0]).low)


def test_no_sample_gives_a_smaller_p_than_the_stated_one() -> None:
    for n in range(1, 12):
        for test in (statistics.sign_flip, statistics.wilcoxon):
            result = test(np.arange(1.0, n + 1))
            assert result.p == result.smallest_p


def test_degenerate_samples() -> None:
    assert np.isnan(t_interval([]).mean)
    assert t_interval([2.0]).mean == 2.0
    assert np.isnan(t_interval([2.0]).low)
    assert np.isnan(statistics.paired_t([1.0]).p)
    assert statistics.paired_t([1.0, 1.0], floor=0.0).p == 0.0
    assert np.isnan(statistics.paired_t([1.0, 1.0]).p)
    assert statistics.paired_t([0.0, 0.0]).p == 1.0
    assert np.isnan(welch_t([1.0], [2.0, 3.0]).p)
    assert np.isnan(welch_t([1.0, 1.0], [2.0, 2.0]).p)
    assert np.isnan(statistics.sign_flip([]).p)
    for bad in ([np.nan, 1.0], [[1.0]]):
        with pytest.raises(ValueError, match="finite"):
            statistics.paired_t(bad)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=12))
def test_holm_keeps_order_and_never_helps(p_values: list[float]) -> None:
    adjusted = statistics.holm(p_values).tolist()
    known = [(p, q) for p, q in zip(p_values, adjusted, strict=True) if not np.isnan(p)]
    assert [np.isnan(p) for p in p_values] == [np.isnan(q) for q in adjusted]
    assert all(p <= q <= min(1.0, len(known) * p) + 1e-12 or q == max(r for _, r in known) for p, q in known)
    assert [q for _, q in sorted(known)] == sorted(q for _, q in known)


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@settings(deadline=None)
@given(samples(2, 9))
def test_flipping_all_signs_changes_nothing(sample: np.ndarray) -> None:
    for test in (statistics.paired_t, statistics.sign_flip, statistics.wilcoxon):
        assert test(sample).p == pytest.approx(test(-sample).p, nan_ok=True)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_power_is_what_simulation_finds(n: int) -> None:
    trials, effect = 4000, statistics.detectable_effect(n)
    rows = np.random.default_rng(n).normal(effect, 1, (trials, n))
    found = np.abs(rows.mean(1)) > statistics.t_half_width(rows.std(1, ddof=1), np.full(trials, n))
    assert np.mean(found) == pytest.approx(0.8, abs=_margin(0.8, trials))
    assert statistics.power(0.0, n) == pytest.approx(0.05, abs=1e-6)


def test_power_grows_with_seeds_and_effect() -> None:
    effects = [statistics.detectable_effect(n) for n in (1, 2, 3, 5, 10, 30)]
    assert effects == sorted(effects, reverse=True)
    powers = [statistics.power(effect, 5) for effect in (0.0, 0.5, 1.0, 2.0, 20.0)]
    assert powers == sorted(powers)
    assert powers[-1] == pytest.approx(1.0)
    assert statistics.power(1.0, 1) == 0.0


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_welch_covers_and_keeps_its_level(n: int, spread: float) -> None:
    """Seeds that do not match; `spread` is how much more one side varies."""
    trials, shift = 4000, 0.7
    rng = np.random.default_rng(n)
    a, b = rng.normal(0, 1, (trials, n)), rng.normal(shift, spread, (trials, n))
    tests = statistics.welch_t_rows(a, b)
    covered = np.abs(tests.difference - shift) <= tests.half_width
    # Welch's degrees of freedom are an approximation; with three seeds it errs to the safe side.
    assert np.mean(covered) >= 0.95 - 0.01 - _margin(0.95, trials)
    assert np.mean(statistics.welch_t_rows(a, b - shift).p <= 0.05) <= 0.05 + 0.01 + _margin(0.05, trials)


def _rejections(test: Callable[[np.ndarray], statistics.Comparison], rows: np.ndarray, level: float) -> float:
    return float(np.mean([test(row).p <= level for row in rows]))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_power_of_permutation_tests(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three and five pairs never reach 5 %, whatever the effect; ten have almost the power of t."""
    monkeypatch.setattr(statistics, "bootstrap_interval", lambda values, *_: t_interval(values))
    rows = np.random.default_rng(n).normal(1.0, 1.0, (1000, n))
    for test in (statistics.sign_flip, statistics.wilcoxon):
        found = _rejections(test, rows, 0.05)
        if statistics.smallest_sign_flip_p(n) > 0.05:
            assert found == 0
        else:
            assert found == pytest.approx(statistics.power(1.0, n), abs=0.03 + _margin(0.8, 1000))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_holm_keeps_the_level_of_a_family(n: int) -> None:
    """Of ten comparisons without any difference, at least one is found at most one time in twenty."""
    trials = 2000
    rows = np.random.default_rng(n).normal(size=(trials * 10, n))
    p_values = statistics.paired_t_rows(rows).p.reshape(trials, 10)
    false_alarm = [bool((statistics.holm(row) <= 0.05).any()) for row in p_values]
    assert np.mean(false_alarm) <= 0.05 + _margin(0.05, trials)


def test_a_variance_is_at_least_that_of_rounding() -> None:
    """scipy's tests on samples whose variance is the floor give the same p."""
    step = 1 / 750
    floor = float(statistics.variance_floor(step, step))
    assert floor == pytest.approx(step**2 / 6)
    half = np.sqrt(floor / 2)
    spread = np.array([0.01 - half, 0.01 + half])  # variance `floor` about the same mean
    same = statistics.paired_t([0.01, 0.01], floor=floor)
    assert same.p == pytest.approx(stats.ttest_1samp(spread, 0).pvalue)
    assert same.p == pytest.approx(statistics.paired_t([0.01 + 1e-17, 0.01], floor=floor).p)
    wide = np.array([0.1, 0.2])
    assert statistics.paired_t(wide, floor=floor).p == pytest.approx(stats.ttest_1samp(wide, 0).pvalue)
    one = np.sqrt(floor / 4)
    spread_a, spread_b = (value + np.array([-one, one]) for value in (0.3, 0.31))
    alike = statistics.welch_t_rows(np.array([[0.3, 0.3]]), np.array([[0.31, 0.31]]), floors=(floor / 2, floor / 2))
    assert alike.p[0] == pytest.approx(stats.ttest_ind(spread_b, spread_a, equal_var=False).pvalue)
    # Differences that are equal but for floating point have no variance.
    noisy = np.array([0.9 - 0.8, 0.7 - 0.6, 0.4 - 0.3])
    assert noisy.std() > 0
    assert np.isnan(statistics.paired_t(noisy).p)


def _documented(heading: str) -> list[list[str]]:
    """The body of the table in docs/leaderboards.md whose first row begins like this, cell by cell."""
    text = (Path(__file__).parents[2] / "docs" / "leaderboards.md").read_text()
    lines = text[text.index(heading) :].splitlines()[2:]
    table = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_documented_coverage_is_what_simulation_finds() -> None:
    draws = [DISTRIBUTIONS["normal"], DISTRIBUTIONS["heavy"], DISTRIBUTIONS["uniform"]]
    draws.append(lambda rng, shape: rng.exponential(size=shape) - 1)
    trials = 20_000
    table = _documented("| seeds | normal |")
    assert [row[0] for row in table] == ["3", "5", "10"]
    for row in table:
        n = int(row[0])
        for draw, stated in zip(draws, row[1:], strict=True):
            rows = draw(np.random.default_rng(n), (trials, n))
            covered = np.abs(rows.mean(1)) <= statistics.t_half_width(rows.std(1, ddof=1), np.full(trials, n))
            rate = float(stated.removesuffix(" %")) / 100
            assert np.mean(covered) == pytest.approx(rate, abs=_margin(rate, trials)), (n, stated)


def test_documented_power_is_what_is_computed() -> None:
    table = _documented("| pairs | difference found")
    assert [int(row[0]) for row in table] == [2, 3, 5, 10]
    for pairs, detectable, *powers, least_p in table:
        n = int(pairs)
        assert float(detectable) == pytest.approx(statistics.detectable_effect(n), abs=0.005)
        assert float(least_p) == pytest.approx(statistics.smallest_sign_flip_p(n), rel=0.05)
        for effect, stated in zip((1.0, 2.0, 3.0), powers, strict=True):
            assert float(stated.removesuffix(" %")) / 100 == pytest.approx(statistics.power(effect, n), abs=0.0051)
