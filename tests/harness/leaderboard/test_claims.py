"""Claim files: what a statement means, what is refused, what holds on which records, with which level and power."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from subnetbench import claims
from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.statistics import paired_errors
from subnetbench.harness.leaderboard.claim_file import Statement, Term, parse_statement, read_claims
from subnetbench.harness.leaderboard.claim_power import Estimate, Relation, decide, effect_found, power_of
from subnetbench.harness.records import Score

VALUES = np.array([0.70, 0.71, 0.72, 0.70, 0.71])
ASLP, SUPERMASK = Term("aslp"), Term("supermask")


def write(path: Path, *lines: str, **fields: Any) -> Path:
    text = "".join(f"{name}: {json.dumps(value)}\n" for name, value in fields.items())
    path.write_text(text + "claims:\n" + "".join(f"  - {line}\n" for line in lines))
    return path


@pytest.fixture
def board(folder: Any) -> Any:
    """aslp is better than supermask by 0.1, dense about as good as aslp, magnitude has one seed, random_mask two configs."""
    noise = np.array([0.001, -0.001, 0.0, 0.001, 0.0])
    folder.seeds(VALUES, method="aslp")
    folder.seeds(VALUES - 0.1 + noise, method="supermask")
    folder.seeds(VALUES + noise, method="dense")
    folder.seeds([0.5], method="magnitude")
    for sparsity in (0.5, 0.9):
        folder.seeds(
            VALUES - 0.3 - sparsity / 10 + noise * sparsity,
            method="random_mask",
            config={"config": {"sparsity": sparsity}},
        )
    return folder


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("aslp > supermask on top1, emoji", Statement(ASLP, ">", SUPERMASK, 0.0, 0.0, "top1", "emoji")),
        ("aslp>supermask+0.02 on top1,emoji", Statement(ASLP, ">", SUPERMASK, 0.02, 0.0, "top1", "emoji")),
        ("aslp > supermask - .02 on top1, emoji", Statement(ASLP, ">", SUPERMASK, -0.02, 0.0, "top1", "emoji")),
        ("aslp - supermask > 0.02 on top1, emoji", Statement(ASLP, ">", SUPERMASK, 0.02, 0.0, "top1", "emoji")),
        ("aslp - supermask < -1e-2 on top1, emoji", Statement(ASLP, "<", SUPERMASK, -0.01, 0.0, "top1", "emoji")),
        ("aslp == supermask within 0.01 on top1, emoji", Statement(ASLP, "==", SUPERMASK, 0.0, 0.01, "top1", "emoji")),
        ("aslp > 0.8 on top1, fashion_mnist", Statement(ASLP, ">", None, 0.8, 0.0, "top1", "fashion_mnist")),
        ("aslp == 0.8 within 0.1 on top1, emoji", Statement(ASLP, "==", None, 0.8, 0.1, "top1", "emoji")),
        ("aslp > trivial + 0.1 on top1, emoji", Statement(ASLP, ">", Term("trivial"), 0.1, 0.0, "top1", "emoji")),
        (
            "prunnet[capacity_0.2 -> dense] < prunnet[dense -> dense] on map, emoji",
            Statement(
                Term("prunnet", "capacity_0.2", "dense"),
                "<",
                Term("prunnet", "dense", "dense"),
                0.0,
                0.0,
                "map",
                "emoji",
            ),
        ),
    ],
)
def test_what_a_statement_means(text: str, statement: Statement) -> None:
    assert parse_statement(text) == statement


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aslp is better than supermask", "no statement of a known form"),
        ("aslp > supermask on top1", "no statement of a known form"),
        ("aslp >= supermask on top1, emoji", "cannot be tested"),
        ("aslp == supermask on top1, emoji", "within a tolerance"),
        ("aslp > supermask within 0.1 on top1, emoji", "within a tolerance"),
        ("aslp == supermask within 0 on top1, emoji", "must be positive"),
        ("aslp - supermask > dense on top1, emoji", "compared with a number"),
        ("aslp > 0.8 + 0.1 on top1, emoji", "one number"),
        ("aslp == supermask within 1e999 on top1, emoji", "finite"),
        ("aslp > -1e999 on top1, emoji", "finite"),
        ("aslp > supermask - 1e999 on top1, emoji", "finite"),
        ("aslp > supermask on topp1, emoji", "topp1"),
        ("a" * 5000 + " > " + "b" * 5000, "no statement"),
    ],
)
def test_what_is_no_statement(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as raised:
        read_claims(write(tmp_path / "c.yaml", "aslp > dense on top1, emoji", json.dumps(text), name="x"))
    assert f"{tmp_path}/c.yaml line 4: claims[1].claim" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("claims: []\n", "at least 1"),
        ("- a\n", "is not a mapping"),
        ("claims: {a: 1}\n", "claims"),
        ("claims:\n  - [a]\n", "line 2.*neither a statement nor a mapping"),
        ("claims:\n  - {claim: a > b on top1, emoji, wher: x}\n", "line 2"),
        ("claims:\n  - {claim: 'a > b on top1, emoji', wher: x}\n", "line 2.*did you mean 'where'"),
        ("claims:\n  - {claim: 'a > b on top1, emoji', effect: -1}\n", "line 2.*effect"),
        ("claims:\n  - {claim: 'a > b on top1, emoji', across: [method]}\n", "line 2.*across.*never compared.*budget"),
        ("confidence: 1\nclaims: ['a > b on top1, emoji']\n", "confidence"),
        ("claims: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("claims: [\n", "not valid YAML: line 2"),
        ("a: &a [1]\na: 2\n", "twice"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"(?s){message}"):
        read_claims(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("aslp > supermask on top1, emoji", "holds"),
        ("supermask < aslp on top1, emoji", "holds"),
        ("supermask > aslp on top1, emoji", "contradicted"),
        ("aslp > supermask + 0.05 on top1, emoji", "holds"),
        ("aslp - supermask > 0.15 on top1, emoji", "contradicted"),
        ("aslp > dense on top1, emoji", "undecided"),
        ("aslp == dense within 0.01 on top1, emoji", "holds"),
        ("aslp == supermask within 0.01 on top1, emoji", "contradicted"),
        ("aslp == dense within 0.0002 on top1, emoji", "undecided"),
        ("aslp > 0.6 on top1, emoji", "holds"),
        ("aslp < 0.6 on top1, emoji", "contradicted"),
        ("aslp == 0.7 within 0.05 on top1, emoji", "holds"),
        ("aslp > magnitude on top1, emoji", "undecided"),
        ("aslp > nothing on top1, emoji", "no runs"),
        ("aslp > dense on recall_at_1, emoji", "no runs"),
        ("aslp > random_mask on top1, emoji", "ambiguous"),
        ("aslp > aslp on top1, emoji", "not comparable"),
        ("{claim: 'aslp > random_mask on top1, emoji', b: config.sparsity == 0.9}", "holds"),
        ("{claim: 'random_mask > 0.3 on top1, emoji', match: [config.sparsity]}", "holds"),
        ("{claim: 'random_mask > 0.35 on top1, emoji', match: [config.sparsity]}", "contradicted"),
        (
            "{claim: 'random_mask > random_mask on top1, emoji', a: config.sparsity < 0.6, b: config.sparsity > 0.6}",
            "holds",
        ),
    ],
)
def test_what_holds(board: Any, tmp_path: Path, line: str, status: str) -> None:
    (result,) = claims(write(tmp_path / "c.yaml", line), board.path).results
    assert result.status == status
    assert claims(tmp_path / "c.yaml", board.path).exit_status == int(status != "holds")
    assert claims(tmp_path / "c.yaml", board.path, allow_undecided=True).exit_status == int(
        status not in ("holds", "undecided")
    )


def test_a_result_says_what_it_stands_on(board: Any, tmp_path: Path) -> None:
    board.add(None, method="aslp", seed=9, status="failed", error_kind="nan", error="loss is NaN")
    line = "{claim: 'aslp > dense on top1, emoji', says: They are close., effect: 0.002}"
    (result,) = claims(write(tmp_path / "c.yaml", line), board.path).results
    (part,) = result.parts
    assert (result.says, result.line, part.pairs, part.failed_left) == ("They are close.", 2, 5, 1)
    assert part.run_ids_left == tuple(f"run{n}" for n in range(1, 6))
    assert part.run_ids_right == tuple(f"run{n}" for n in range(11, 16))
    assert part.left_mean - part.right_mean == pytest.approx(part.measured)
    assert part.low < part.measured < part.high
    assert 0.8 < part.power < 1
    assert part.effect == 0.002
    assert part.detectable < 0.002
    assert part.interval == "seeds"
    assert "1 run on the left without a result" in result.reason


def test_rows_that_are_never_compared(board: Any, tmp_path: Path) -> None:
    board.seeds(VALUES, method="edge_popup", data_digest="d2")
    board.seeds(VALUES, method="hgsl", budget="90 epochs")
    data, budget = claims(
        write(tmp_path / "c.yaml", "aslp > edge_popup on top1, emoji", "aslp > hgsl on top1, emoji"), board.path
    ).results
    assert (data.status, budget.status) == ("not comparable", "not comparable")
    assert "other data_digest" in data.reason
    assert "other budget" in budget.reason
    line = "{claim: 'aslp > hgsl - 0.1 on top1, emoji', across: [budget]}"
    assert claims(write(tmp_path / "c.yaml", line), board.path).results[0].status == "holds"


def test_a_claim_against_the_trivial_baseline(folder: Any, tmp_path: Path) -> None:
    for seed, value in enumerate(VALUES):
        folder.add(
            scores=[folder.top1(value), Score(metric="top1", value=0.6, split="test", variant="trivial")], seed=seed
        )
    path = write(
        tmp_path / "c.yaml", "edge_popup > trivial + 0.05 on top1, emoji", "edge_popup > trivial + 0.2 on top1, emoji"
    )
    found = claims(path, folder.path)
    assert [result.status for result in found.results] == ["holds", "contradicted"]
    assert found.results[0].parts[0].threshold == pytest.approx(0.65)


def test_without_a_trivial_baseline_nothing_is_undecided(folder: Any, tmp_path: Path) -> None:
    """More seeds would not help, so --allow-undecided must not let it pass."""
    folder.seeds(VALUES)
    path = write(tmp_path / "c.yaml", "edge_popup > trivial on top1, emoji")
    found = claims(path, folder.path, allow_undecided=True)
    assert [(each.status, each.reason) for each in found.results] == [
        ("no runs", "no trivial baseline of top1 is recorded for this data")
    ]
    assert found.exit_status == 1


def test_seeds_without_spread_decide_nothing_and_it_says_why(folder: Any, tmp_path: Path) -> None:
    folder.seeds([0.5, 0.5, 0.5], method="aslp")
    folder.seeds([0.4], method="dense")
    path = write(tmp_path / "c.yaml", "aslp > 0.1 on top1, emoji", "aslp > dense on top1, emoji")
    same, one = claims(path, folder.path).results
    assert (same.status, one.status) == ("undecided", "undecided")
    assert "over how many items" in same.reason
    assert one.reason == "one seed gives no interval"


def test_all_claims_of_a_file_share_the_level(board: Any, tmp_path: Path) -> None:
    line = "aslp > supermask on top1, emoji"
    widths = []
    for count in (1, 10):
        part = claims(write(tmp_path / "c.yaml", *[line] * count), board.path).results[0].parts[0]
        widths.append(part.high - part.low)
    assert widths[1] > 1.5 * widths[0]


def simulated(relation: Relation, true: float, n: int, within: float = 0.0, level: float = 0.05) -> float:
    """How often a claim with threshold 0 holds if the difference is `true` standard deviations."""
    rng = np.random.default_rng(0)
    errors = paired_errors(true + rng.standard_normal((4000, n)))
    estimates = zip(errors.difference, np.sqrt(errors.error2), errors.freedom, strict=True)
    return float(np.mean([decide(relation, 0.0, within, Estimate(*each), level) == "holds" for each in estimates]))


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_claims_that_are_false_hold_no_more_often_than_the_level_allows(n: int) -> None:
    noise = 3 * np.sqrt(0.05 * 0.95 / 4000)
    assert simulated(">", 0.0, n) <= 0.025 + noise
    assert simulated(">", 0.0, n) >= 0.025 - noise
    assert simulated("<", 0.0, n) <= 0.025 + noise
    assert simulated("==", 1.0, n, within=1.0) <= 0.05 + noise
    assert simulated("==", -1.0, n, within=1.0) <= 0.05 + noise


@pytest.mark.parametrize(("over_seeds", "over_items"), [(1.0, 1.0), (1.0, 0.2), (0.2, 1.0)])
def test_with_items_the_level_is_kept_and_power_is_close(over_seeds: float, over_items: float) -> None:
    """Five seeds and forty independent items, both drawn anew each time."""
    rng, n, items, level = np.random.default_rng(0), 5, 40, 0.05
    for effect, relation in ((0.0, ">"), (2.5, ">"), (0.0, "==")):
        holds, within = [], 3.0
        for _ in range(1500):
            of_seeds = over_seeds * rng.standard_normal(n)
            of_items = over_items * np.sqrt(items) * rng.standard_normal(items) / 2
            estimate = Estimate(
                *(effect + of_seeds.mean() + of_items.mean(), of_seeds.std(ddof=1) / np.sqrt(n), n - 1.0),
                *(of_items.std(ddof=1) / np.sqrt(items), items - 1.0),
            )
            holds.append(decide(relation, 0.0, within, estimate, level) == "holds")  # type: ignore[arg-type]
        exact = Estimate(0.0, over_seeds / np.sqrt(n), n - 1.0, over_items / 2, items - 1.0)
        if effect == 0 and relation == ">":
            assert np.mean(holds) <= 0.025 + 3 * np.sqrt(0.025 / 1500)
        else:
            expected = power_of(relation, effect, within, exact, level)  # type: ignore[arg-type]
            assert np.mean(holds) == pytest.approx(expected, abs=0.08)


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("effect", [0.5, 1.0, 2.0])
def test_power_is_how_often_a_true_claim_holds(n: int, effect: float) -> None:
    exact = Estimate(0.0, 1 / np.sqrt(n), n - 1.0)
    expected = power_of(">", effect, 0.0, exact, 0.05)
    assert simulated(">", effect, n) == pytest.approx(expected, abs=3 * np.sqrt(0.25 / 4000))
    assert simulated("<", -effect, n) == pytest.approx(expected, abs=3 * np.sqrt(0.25 / 4000))
    bound = power_of("==", 0.0, effect, exact, 0.05)
    measured = simulated("==", 0.0, n, within=effect)
    assert bound <= measured + 3 * np.sqrt(0.25 / 4000)
    if bound > 0.5:
        assert measured == pytest.approx(bound, abs=3 * np.sqrt(0.25 / 4000))
    assert power_of(">", effect_found(0.8, exact, 0.05), 0.0, exact, 0.05) == pytest.approx(0.8)


def test_the_command(board: Any, tmp_path: Path) -> None:
    path = write(
        tmp_path / "c.yaml",
        "aslp > supermask on top1, emoji",
        "aslp > dense on top1, emoji",
        "supermask > aslp on top1, emoji",
        "aslp > nothing on top1, emoji",
        results=["a"],
    )

    def run(*options: str) -> Any:
        return CliRunner().invoke(app, ["claims", str(path), *options], env={"COLUMNS": "180"})

    done = run()
    assert done.exit_code == 1
    assert "4 claims: 1 holds, 1 undecided, 1 contradicted, 1 no runs." in done.stdout
    assert "line 4, aslp > nothing on top1, emoji: no runs" not in done.stdout
    assert "line 6, aslp > nothing on top1, emoji: no runs, no finished run of nothing" in " ".join(done.stdout.split())
    data = json.loads(run("--json").stdout)
    assert [claim["status"] for claim in data["claims"]] == ["holds", "undecided", "contradicted", "no runs"]
    assert data["claims"][0]["parts"][0]["run_ids_left"] == ["run1", "run2", "run3", "run4", "run5"]
    assert run("--format", "markdown").stdout.startswith("### Claims")
    assert run("--format", "csv").stdout.count("\n") == 5
    good = write(tmp_path / "good.yaml", "aslp > supermask on top1, emoji")
    command = ["claims", str(good), "--results", str(board.path)]
    assert CliRunner().invoke(app, command).exit_code == 0
    open_ = write(tmp_path / "open.yaml", "aslp > dense on top1, emoji")
    assert CliRunner().invoke(app, ["claims", str(open_), "--results", str(board.path)]).exit_code == 1
    allowed = ["claims", str(open_), "--results", str(board.path), "--allow-undecided"]
    assert CliRunner().invoke(app, allowed).exit_code == 0


def test_mistakes_of_filters_name_the_line(board: Any, tmp_path: Path) -> None:
    line = "{claim: 'aslp > dense on top1, emoji', where: no_such_field > 1}"
    with pytest.raises(UserError, match=r"c\.yaml line 2: claims\[0\].*no_such_field"):
        claims(write(tmp_path / "c.yaml", line), board.path)
    with pytest.raises(UserError, match="name results folders"):
        claims(write(tmp_path / "c.yaml", "aslp > dense on top1, emoji"))


def test_a_misspelt_split_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"claims\[0\].*split.*'test', 'validation' or 'train'"):
        read_claims(write(tmp_path / "c.yaml", "{claim: 'aslp > dense on top1, emoji', split: tset}"))


def test_one_claim_holds(board: Any, tmp_path: Path) -> None:
    found = claims(write(tmp_path / "c.yaml", "aslp > supermask on top1, emoji"), board.path)
    assert found.summary == "1 claim: 1 holds."
