"""Metrics against a field of the configs of a sweep."""

import numpy as np
import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard import Leaderboard
from subnetbench.harness.leaderboard.curves import lines_of_board
from subnetbench.harness.records import Score
from subnetbench.harness.records.read import read_records


def lines(folder, against="sparsity", metrics=("top1",), **more):
    return lines_of_board(Leaderboard.from_records(read_records(folder.path)), against, metrics, **more)


def add(folder, value, seeds=(0,), method="edge_popup", inputs=None, **config):
    """Runs that differ in their seeds; the first score is `value`, each further one 0.02 more."""
    spec = {"method": method, "config": config, "inputs": inputs or {}}
    for seed in seeds:
        scores = [Score(metric="top1", value=value + 0.02 * seed, split="test", variant="full")]
        scores.append(Score(metric="macs_executed", value=1000 * value, variant="full"))
        scores.append(Score(metric="top1", value=0.1, split="test", variant="trivial"))
        changes = {"spec": {**spec, "seed": seed}, "config": spec}
        folder.add(method=method, seed=seed, scores=scores, **changes)


def test_a_line_goes_through_all_values_in_order_with_means_and_intervals(folder):
    for sparsity, value in ((0.9, 0.3), (0.0, 0.6), (0.5, 0.5)):
        add(folder, value, seeds=(0, 1), sparsity=sparsity)
    top1, macs = lines(folder, metrics=("top1", "macs_executed"))
    np.testing.assert_array_equal(top1.values, [0.0, 0.5, 0.9])
    np.testing.assert_allclose(top1.mean, [0.61, 0.51, 0.31])
    np.testing.assert_allclose(top1.half, 12.706 * np.std([0, 0.02], ddof=1) / 2**0.5, rtol=1e-3)
    np.testing.assert_allclose(top1.trivial, 0.1)
    assert (top1.name, top1.metric, macs.metric) == ("edge_popup full", "top1", "macs_executed")
    np.testing.assert_allclose(macs.mean, [600, 500, 300])
    assert np.isnan(macs.trivial).all()
    assert macs.to_json()["trivial"] == [None] * 3


def test_what_differs_elsewhere_is_another_line(folder):
    for sparsity in (0.2, 0.4):
        for lr in (0.1, 1.0):
            add(folder, sparsity + lr / 10, sparsity=sparsity, lr=lr)
    add(folder, 0.9, method="dense", sparsity=0.1)
    first, second = lines(folder)
    assert {first.name, second.name} == {"edge_popup full (lr=0.1)", "edge_popup full (lr=1.0)"}
    for line in (first, second):
        np.testing.assert_array_equal(line.values, [0.2, 0.4])
    (only,) = lines(folder, where="lr == 1.0")
    np.testing.assert_allclose(only.mean, [0.3, 0.5])


def levels(share, seed=0):
    masked = {"method": "token_masking", "config": {"masked_share": share, "pattern": "grid"}, "seed": seed}
    return {"levels": [masked, {"method": "two_tower", "config": {"width": 64}, "seed": seed}]}


def test_the_field_of_a_run_that_others_start_from(folder):
    for share in (0.75, 0.25):
        add(folder, 1 - share, method="cascade", inputs=levels(share, seed=int(4 * share)), m=50)
    for name in ("masked_share", "config.masked_share", "inputs.levels.0.config.masked_share"):
        (line,) = lines(folder, name)
        np.testing.assert_array_equal(line.values, [0.25, 0.75])
        assert line.name == "cascade full"


def test_a_field_of_several_runs_must_be_named_in_full(folder):
    for share in (0.75, 0.25):
        inputs = levels(share)
        inputs["levels"][1]["config"]["masked_share"] = 0.0
        add(folder, 1 - share, method="cascade", inputs=inputs)
    with pytest.raises(UserError, match=r"inputs\.levels\.1\.config\.masked_share"):
        lines(folder, "masked_share")
    (line,) = lines(folder, "inputs.levels.0.config.masked_share")
    np.testing.assert_allclose(line.mean, [0.75, 0.25])


@pytest.mark.parametrize(
    ("against", "message"), [("tau", "no run"), ("pattern", "no run"), ("on", "no run"), ("width", "one value only")]
)
def test_there_must_be_a_number_that_varies(folder, against, message):
    for sparsity in (0.2, 0.4):
        add(folder, sparsity, sparsity=sparsity, pattern="grid", on=sparsity > 0.3, width=8)
    with pytest.raises(UserError, match=message):
        lines(folder, against)


def test_records_without_a_spec_are_told_by_their_config(folder):
    for sparsity in (0.2, 0.4):
        folder.add(sparsity, config={"config": {"sparsity": sparsity}})
    (line,) = lines(folder)
    np.testing.assert_allclose(line.mean, [0.2, 0.4])


def test_the_amount_of_data_may_be_what_varies(folder):
    for size in (100, 200):
        spec = {"method": "dense", "config": {"lr": 0.1}, "data": {"train_size": size}}
        recorded = {"spec": {**spec, "seed": 0}, "config": spec, "data_digest": str(size)}
        folder.add(size / 1000, method="dense", **recorded)
    (line,) = lines(folder, "train_size")
    np.testing.assert_allclose(line.mean, [0.1, 0.2])
    with pytest.raises(UserError, match="one value only"):
        lines(folder, "lr")
