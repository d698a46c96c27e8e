"""The tables of docs/statistics.md, simulated again: what is stated is what the program does on finite test sets."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from subnetbench.harness.core import over_tasks, statistics
from subnetbench.harness.leaderboard.ranking import rank_rows
from subnetbench.tests.harness import discrete_scores

ROWS = 30
Simulated = tuple[float, ...]


DOCUMENT = Path(__file__).parents[2] / "docs" / "statistics.md"


def table(heading: str) -> list[list[str]]:
    """The body of the table in docs/statistics.md whose first row begins like this, cell by cell."""
    text = DOCUMENT.read_text()
    lines = text[text.index(heading) :].splitlines()[2:]
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]


def percent(text: str) -> float:
    return float(text.removesuffix(" %")) / 100


def margin(rate: float, trials: int) -> float:
    """Four standard errors of a simulated share, and the rounding of the stated one."""
    return 4 * float(np.sqrt(max(rate, 0.002) * (1 - rate) / trials)) + 0.0005


def levels(items: int, seeds: int, boards: int, generator: int = 0) -> tuple[Simulated, Simulated]:
    """Of boards of equal rows: the share of tests, of boards by `compare` and of boards by ranks with a significant
    difference; with the floor of the variance, and the last two without it."""
    rng = np.random.default_rng([generator, items, seeds])
    scores = discrete_scores.draw(rng, np.zeros(ROWS), seeds, items, boards)
    floor = float(statistics.variance_floor(1 / items, 1 / items))
    pairs = (scores[:, 1::2] - scores[:, ::2]).reshape(-1, seeds)
    single = float(np.mean(statistics.paired_t_rows(pairs, floor=floor).p <= 0.05))
    against_one = (scores[:, 1:] - scores[:, :1]).reshape(-1, seeds)

    def compared(least: float) -> float:
        p = statistics.paired_t_rows(against_one, floor=least).p.reshape(boards, ROWS - 1)
        return float(np.mean([bool((statistics.holm(row) <= 0.05).any()) for row in p]))

    def ranked(step: float) -> float:
        found = [rank_rows(board, np.full(ROWS, step), higher_is_better=True) for board in scores]
        return float(np.mean([bool((ranks.best > 1).any()) for ranks in found]))

    return (single, compared(floor), ranked(1 / items)), (compared(0.0), ranked(0.0))


CASES = list(itertools.product((200, 500, 750, 1000), (2, 3, 5)))


@pytest.mark.parametrize(("items", "seeds"), CASES)
def test_the_level_is_kept_on_finite_test_sets(items: int, seeds: int) -> None:
    boards = 300
    row = table("| items | seeds | one test")[CASES.index((items, seeds))]
    assert row[:2] == [str(items), str(seeds)]
    kept, without = levels(items, seeds, boards, generator=1)
    trials = (boards * ROWS // 2, boards, boards, boards, boards)
    for found, stated, of in zip((*kept, *without), row[2:], trials, strict=True):
        assert found == pytest.approx(percent(stated), abs=margin(percent(stated), of)), row
    for found, of in zip(kept, trials, strict=False):
        assert found <= 0.05 + margin(0.05, of)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_methods_that_hardly_vary_keep_the_level(seeds: int) -> None:
    """Less than one item of spread: nearly all differences are 0 or the same single item."""
    rng, items, trials = np.random.default_rng(seeds), 500, 20_000
    for changing in (1, 2, 4):  # items that a seed decides by the toss of a coin
        scores = (400 + rng.binomial(changing, 0.5, (2, trials, seeds))) / items
        floors = statistics.variance_floor(1 / items), statistics.variance_floor(1 / items)
        paired = statistics.paired_t_rows(scores[1] - scores[0], floor=floors[0] + floors[1])
        welch = statistics.welch_t_rows(*scores, floors=floors)
        for tests in (paired, welch):
            assert np.mean(tests.p <= 0.05) <= 0.05 + margin(0.05, trials)


def coverage(seeds: int, lost: float, shifts: np.ndarray, boards: int, generator: int = 0) -> tuple[float, float]:
    """How often all intervals of ranks of a board hold the true ranks, and how wide they are on average."""
    rng = np.random.default_rng([generator, seeds, int(100 * lost)])
    means = discrete_scores.true_means(shifts)
    scores = discrete_scores.lose(rng, discrete_scores.draw(rng, shifts, seeds, 500, boards), lost)
    held, widths = [], []
    for board in scores:
        ranks = rank_rows(board, np.full(len(shifts), 1 / 500), higher_is_better=True)
        ranked = ranks.rank > 0
        true = 1 + (means[ranked][None] > means[ranked][:, None] + 1e-12).sum(axis=1)
        held.append(((ranks.best[ranked] <= true) & (true <= ranks.worst[ranked])).all())
        widths += (ranks.worst - ranks.best + 1)[ranked].tolist()
    return float(np.mean(held)), float(np.mean(widths))


EQUAL, APART = np.zeros(15), np.linspace(-1, 1, 15)
RANK_CASES = list(itertools.product((2, 3, 5, 10), (0.0, 0.2)))


@pytest.mark.parametrize(("seeds", "lost"), RANK_CASES)
def test_intervals_of_ranks_are_as_stated(seeds: int, lost: float) -> None:
    boards = 200
    row = table("| seeds | failed | equal rows")[RANK_CASES.index((seeds, lost))]
    assert row[:2] == [str(seeds), f"{100 * lost:.0f} %"]
    for shifts, stated in ((EQUAL, row[2]), (APART, row[3])):
        found, width = coverage(seeds, lost, shifts, boards, generator=1)
        assert found == pytest.approx(percent(stated), abs=margin(percent(stated), boards)), row
        assert found >= 0.95 - margin(0.95, boards)
    assert width == pytest.approx(float(row[4]), abs=0.4)


OVERALL_CASES = [(2, 3), (2, 5), (2, 10), (4, 3), (4, 5), (4, 10), (10, 3), (10, 5)]
SHIFTS = np.array([0.0, 0.0, 0.3, -0.2])


def bootstrap_coverage(tasks: int, seeds: int, samples: int, generator: int = 0) -> tuple[float, ...]:
    """How often intervals over tasks hold the value of very many seeds: mean, interquartile mean, probability of
    improvement; and all mean ranks of a board together. On 500 items; of one entrant every second task has lost a seed."""
    rng = np.random.default_rng([generator, tasks, seeds])
    kinds: dict[str, over_tasks.Statistic] = {
        "mean": over_tasks.mean_score,
        "iqm": over_tasks.interquartile_mean,
    }

    def draw(count: int) -> np.ndarray:
        levels = np.linspace(-1.0, 1.0, tasks)
        return np.stack([discrete_scores.draw(rng, SHIFTS + level, count, 500)[0] for level in levels], axis=1)

    many = draw(1000)
    truth = {name: kind(many[None])[0] for name, kind in kinds.items()}
    pairs = [(2, 0), (0, 1)]
    truth["improvement"] = np.array([over_tasks.probability_of_improvement(many[a], many[b]) for a, b in pairs])
    levels = np.linspace(-1.0, 1.0, tasks)
    means = np.stack([discrete_scores.true_means(SHIFTS + level) for level in levels], axis=1)
    true_rank = over_tasks.mean_rank(means[..., None])
    held: dict[str, list[float]] = {name: [] for name in (*truth, "rank")}
    for at in range(samples):
        scores = draw(seeds)
        scores[3, ::2, -1] = np.nan
        found = over_tasks.stratified_bootstrap(scores, kinds, seed=at)
        found["improvement"] = over_tasks.improvements(scores, pairs, seed=at)
        for name, each in found.items():
            inside = (each.low - 1e-9 <= truth[name]) & (truth[name] <= each.high + 1e-9)
            held[name].append(float(np.mean(inside)) if np.isfinite(each.low).all() else np.nan)
        level = 1 - 0.05 / tasks
        ranks = [
            rank_rows(scores[:, task], np.full(4, 1 / 500), higher_is_better=True, confidence=level)
            for task in range(tasks)
        ]
        low, high = (np.mean([getattr(rank, side) for rank in ranks], axis=0) for side in ("best", "worst"))
        held["rank"].append(float(((low <= true_rank) & (true_rank <= high)).all()))
    return tuple(float(np.mean(each)) for each in held.values())


@pytest.mark.parametrize("tasks", [2, 4, 10])
def test_intervals_over_data_sets_cover_as_stated(tasks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_tasks, "RESAMPLES", 2500)
    monkeypatch.setattr(over_tasks, "_FEWEST_BEYOND", 0.8)
    seeds, samples = 5, 60
    row = table("| data sets | seeds | mean")[OVERALL_CASES.index((tasks, seeds))]
    assert row[:2] == [str(tasks), str(seeds)]
    found = bootstrap_coverage(tasks, seeds, samples, generator=1)
    for share, stated in zip(found, row[2:], strict=True):
        assert share == pytest.approx(percent(stated), abs=margin(percent(stated), samples)), row


def test_three_seeds_on_two_data_sets_have_no_interval() -> None:
    assert table("| data sets | seeds | mean")[0][2:] == ["none"] * 3 + ["100.0 %"]
    assert np.isnan(bootstrap_coverage(2, 3, 1)[0])


def write_tables(line: Callable[[str], object] = print) -> None:
    """Print the tables, from other random numbers than the tests: `python -m subnetbench.tests.harness...`."""
    for items, seeds in CASES:
        kept, without = levels(items, seeds, 2000)
        line(" | ".join([f"| {items}", str(seeds), *(f"{100 * share:.1f} %" for share in (*kept, *without))]) + " |")
    for seeds, lost in RANK_CASES:
        (equal, _), (apart, width) = (coverage(seeds, lost, shifts, 1000) for shifts in (EQUAL, APART))
        line(f"| {seeds} | {100 * lost:.0f} % | {100 * equal:.1f} % | {100 * apart:.1f} % | {width:.1f} |")
    over_tasks.RESAMPLES, over_tasks._FEWEST_BEYOND = 2500, 0.8  # a tenth: 200 boards are coarser than that
    for tasks, seeds in OVERALL_CASES:
        shares = bootstrap_coverage(tasks, seeds, 200)
        cells = ["none" if np.isnan(share) else f"{100 * share:.1f} %" for share in shares]
        line(f"| {tasks} | {seeds} | {' | '.join(cells)} |")


if __name__ == "__main__":
    write_tables()
