"""Comparisons by test item: McNemar, bootstrap over clusters, seeds and items together; and what is said where items lack."""

import numpy as np
import pytest
from scipy.stats import binomtest
from typer.testing import CliRunner

from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard import Settings, compare
from subnetbench.harness.records import Score
from subnetbench.harness.records.items import ItemSet, ItemValues
from subnetbench.harness.records.items_file import items_of, write_items

N = 200
ALONE = ItemSet("image", np.arange(N), np.arange(N) % 4, ("a", "b", "c", "d"), np.arange(N))
CLUSTERED = ItemSet("query", np.arange(N), np.arange(N) // 5, tuple(map(str, range(40))), np.arange(N) // 5)
SETS = {"a": "method == 'aslp'", "b": "method == 'supermask'"}


def add(folder, values, seed=0, *, of=ALONE, stored=True, metric="top1", **changes):
    items = ItemValues(of, np.asarray(values))
    score = Score(metric=metric, value=items.mean, split="test", variant="full", items=items)
    record_id = f"{changes['method']}{seed}"
    digest = write_items(folder.path, record_id, items_of([score])).digest if stored else ""
    folder.add(scores=[score], seed=seed, record_id=record_id, items_digest=digest, primary_metric=metric, **changes)


def right(share, seed):
    return (np.random.default_rng(seed).random(N) < share).astype(float)


def line(folder, **settings):
    found = compare(folder.path, None, Settings(**(SETS | settings)))
    assert len(found.rows) == 1
    return found.rows.iloc[0], " ".join(found.notes)


def test_one_run_on_each_side_by_mcnemar(folder):
    before = right(0.6, 0)
    after = before.copy()
    after[:30] = 1 - after[:30]
    add(folder, before, method="aslp")
    add(folder, after, method="supermask")
    gained, lost = int(((after - before) == 1).sum()), int(((after - before) == -1).sum())
    found, notes = line(folder, pair="items")
    assert found["test"] == "McNemar"
    assert found["pair"] == "items"
    assert found["p"] == pytest.approx(binomtest(gained, gained + lost).pvalue)
    assert found["difference"] == pytest.approx((gained - lost) / N)
    assert found["low"] < found["difference"] < found["high"]
    assert "for the runs that there are and not over seeds" in notes
    found, notes = line(folder)
    assert found["verdict"] == "undecidable", "one seed proves nothing of other seeds"
    assert "1 tested over seeds alone, not over test items: too few seeds" in notes


def test_clusters_are_not_for_mcnemar(folder):
    """Five items that change together are one change, not five."""
    before = np.repeat(right(0.5, 1)[:40], 5)
    after = before.copy()
    after[:50] = 1  # of ten clusters, about half gain
    for of, folder_method in ((CLUSTERED, ("aslp", "supermask")), (ALONE, ("dense", "magnitude"))):
        for method, values in zip(folder_method, (before, after), strict=True):
            add(folder, values, of=of, method=method)
    clustered, _ = line(folder, pair="items")
    alone, _ = line(folder, pair="items", a="method == 'dense'", b="method == 'magnitude'")
    assert clustered["test"] == "cluster bootstrap of items"
    assert alone["test"] == "McNemar"
    assert clustered["p"] > 10 * alone["p"]


def test_average_precision_over_seeds_and_items(folder):
    generator = np.random.default_rng(3)
    easy = generator.random(N)
    for seed in range(3):
        noise = 0.05 * generator.random((2, N))
        options = {"seed": seed, "of": CLUSTERED, "metric": "map", "task": "retrieval"}
        add(folder, 0.8 * easy + noise[0], method="aslp", **options)
        add(folder, 0.8 * easy + noise[1] + 0.1, method="supermask", **options)
    joint, notes = line(folder)
    seeds, _ = line(folder, pair="seeds")
    items, _ = line(folder, pair="items")
    assert (joint["pair"], joint["test"], joint["verdict"]) == ("joint", "t over seeds and items", "better")
    assert "over seeds and test items together" in notes
    widths = {name: each["high"] - each["low"] for name, each in (("j", joint), ("s", seeds), ("i", items))}
    assert widths["j"] == pytest.approx(np.hypot(widths["s"], widths["i"]))
    assert joint["difference"] == pytest.approx(seeds["difference"])
    assert joint["p"] >= max(seeds["p"], items["p"])


def test_seeds_that_do_not_match_are_joined_too(folder):
    for seed in range(3):
        add(folder, right(0.5, seed), seed, method="aslp")
        add(folder, right(0.9, 10 + seed), 5 + seed, method="supermask")
    found, _ = line(folder)
    assert (found["pairs"], found["pair"], found["verdict"]) == (0, "joint", "better")


def test_rows_without_items_are_tested_over_seeds_which_is_said(folder):
    for seed in range(3):
        add(folder, right(0.5, seed), seed, method="aslp")
        add(folder, right(0.9, 10 + seed), seed, method="supermask", stored=False)
    found, notes = line(folder)
    assert (found["pair"], found["test"]) == ("seeds", "paired t")
    assert "1 tested over seeds alone, not over test items: b: no outcomes by item are stored" in notes
    found, notes = line(folder, pair="items")
    assert np.isnan(found["p"])
    assert found["verdict"] == "undecidable"
    assert "1 not tested: b: no outcomes by item are stored" in notes


def test_different_items_are_not_paired(folder):
    for seed in range(2):
        add(folder, right(0.5, seed), seed, method="aslp")
        add(folder, right(0.9, seed), seed, of=CLUSTERED, method="supermask")
    assert "a and b were scored on different items" in line(folder)[1]


def test_a_margin_applies_to_items_too(folder):
    before = right(0.8, 0)
    after = before.copy()
    after[np.flatnonzero(before)[:40]] = 0
    for seed in range(3):
        add(folder, before, seed, method="aslp")
        add(folder, np.roll(after, 0), seed, method="supermask")
    assert line(folder, pair="items")[0]["verdict"] == "worse beyond margin"
    assert line(folder, pair="items", margin=0.3)[0]["verdict"] == "worse"


def test_from_the_command_line(folder, other_folder):
    for seed in range(3):
        for where in (folder, other_folder):
            add(where, right(0.5, seed + 100 * (where is other_folder)), seed, method="aslp")
    runner = CliRunner()
    gate = runner.invoke(app, ["compare", str(folder.path), str(other_folder.path)])
    assert gate.exit_code == 0
    text = " ".join(gate.output.split())
    assert "over seeds, not over test items" in text
    assert "--pair joint, where outcomes by item are stored" in text
    joint = runner.invoke(app, ["compare", str(folder.path), str(other_folder.path), "--pair", "joint"])
    assert "t over seeds and items" in joint.output
    wrong = runner.invoke(app, ["compare", str(folder.path), str(other_folder.path), "--pair", "both"])
    assert wrong.exit_code == 2


def test_a_permutation_over_seeds_is_not_over_items():
    with pytest.raises(UserError, match="test over seeds alone"):
        Settings(test="sign_flip", pair="joint")
    with pytest.raises(UserError, match="pair"):
        Settings(pair="both")
    assert Settings(test="wilcoxon", **SETS).pairing == "seeds"
    assert Settings(**SETS).pairing == "joint"
    assert Settings().pairing == "seeds"
