"""Query network x gallery network: from records and from scores, as text and as a picture."""

import numpy as np
import pytest

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard import Leaderboard
from subnetbench.harness.leaderboard.matrix import draw, matrices_of_board, matrices_of_scores
from subnetbench.harness.records import Score

VALUES = {("dense", "dense"): 0.9, ("dense", "small"): 0.7, ("small", "dense"): 0.8, ("small", "small"): 0.6}


def scores(shift=0.0, pairs=VALUES):
    found = [
        Score(metric=metric, value=value + shift, split="test", variant=query, gallery_variant=gallery)
        for metric in ("map", "recall_at_1")
        for (query, gallery), value in pairs.items()
    ]
    sizes = {"small": 0.2, "dense": 1.0}
    return [*found, *(Score(metric="capacity", value=size, variant=name) for name, size in sizes.items())]


def add_run(folder, seed, given):
    config = {"method": "prunnet", "task": "retrieval", "primary_metric": "recall_at_1"}
    folder.add(seed=seed, scores=given, **config)


def test_seeds_are_averaged_and_the_largest_network_comes_first(folder):
    backwards = dict(reversed(VALUES.items()))
    add_run(folder, 0, scores(pairs=backwards))
    add_run(folder, 1, scores(shift=0.02, pairs=backwards))
    found = matrices_of_board(Leaderboard(folder.path))
    assert [matrix.metric for matrix in found] == ["map", "recall_at_1"]
    first = found[0]
    assert first.names == ("dense", "small")
    assert first.seeds == 2
    np.testing.assert_allclose(first.mean, [[0.91, 0.71], [0.81, 0.61]])
    np.testing.assert_allclose(first.std, np.full((2, 2), np.std([0, 0.02], ddof=1)), atol=1e-12)
    np.testing.assert_allclose(first.self_tests, [0.91, 0.61])
    np.testing.assert_allclose(first.gains, [0, 0.2])
    table = first.table()
    assert table.cells[1] == ["small", "81.0 ± 12.7", "61.0 ± 12.7", "+20.0"]
    assert first.summary() == "mean self-test 76.0, mean cross-test 76.0"


def test_pairs_that_were_not_tested_are_left_empty(folder):
    add_run(folder, 0, scores(pairs={pair: VALUES[pair] for pair in (("dense", "dense"), ("small", "dense"))}))
    (first, _) = matrices_of_board(Leaderboard(folder.path))
    assert np.isnan(first.mean[:, 1]).all()
    assert first.to_json()["mean"] == [[0.9, None], [0.8, None]]
    assert first.table().cells[1] == ["small", "80.0", "-", ""]


def test_runs_without_cross_tests_have_no_matrix(folder):
    add_run(folder, 0, scores(pairs={("dense", "dense"): 0.5}))
    folder.add(0.4)
    assert matrices_of_board(Leaderboard(folder.path)) == []
    assert matrices_of_scores(scores(pairs={("dense", "dense"): 0.5}), "run") == []


def test_matrices_of_one_evaluation():
    first, second = matrices_of_scores(scores(), "run")
    np.testing.assert_allclose(first.mean, [[0.9, 0.7], [0.8, 0.6]])
    assert second.metric == "recall_at_1"
    landmarks = [
        Score(metric="map_at_100", value=value, split="test", variant=q, gallery_variant=g)
        for (q, g), value in VALUES.items()
    ]
    assert [matrix.metric for matrix in matrices_of_scores(landmarks, "run")] == ["map_at_100"]


def test_a_metric_that_is_not_there_is_named(folder):
    add_run(folder, 0, scores())
    with pytest.raises(UserError, match="recall_at_3"):
        matrices_of_board(Leaderboard(folder.path), ["recall_at_3"])


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_heat_maps_are_drawn(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"matrix{suffix}"
    draw(matrices_of_scores(scores(), "run"), path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert len(content) > 5000


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(UserError, match="kind of image"):
        draw(matrices_of_scores(scores(), "run"), tmp_path / "matrix.bmp")
    with pytest.raises(UserError, match="nothing to draw"):
        draw([], tmp_path / "matrix.png")
