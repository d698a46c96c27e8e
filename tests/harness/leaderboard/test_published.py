from pathlib import Path
from typing import Any

import pytest
import yaml

from subnetbench.harness.errors import UserError
from subnetbench.harness.evaluation.metrics import parse_metric
from subnetbench.harness.leaderboard import Leaderboard, load_published
from subnetbench.harness.leaderboard.published import FOLDER, beside
from subnetbench.harness.records import Score
from subnetbench.harness.registry import get_method, listing
from subnetbench.harness.sweep_file import read_sweep

TABLE: dict[str, Any] = {
    "source": "table 1",
    "paper": "p",
    "verified": True,
    "unit": "percent",
    "metric": "top1",
    "method": "edge_popup",
    "dataset": "emoji",
    "rows": [{"label": "as printed", "values": [55]}],
}


def _write(path: Path, *tables: dict[str, Any], **more: Any) -> list[Path]:
    path.write_text(yaml.safe_dump({"papers": {"p": "A paper"}, "tables": list(tables), **more}))
    return [path]


def test_every_shipped_file_loads_and_says_where_it_is_from() -> None:
    files = sorted(FOLDER.glob("*.yaml"))
    assert len(files) == 6
    figures = load_published()
    assert len(figures) == len({(f.says.source, f.says.label, f.says.note, repr(f.says)) for f in figures})
    for figure in figures:
        assert figure.says.source
        assert figure.says.label
        assert figure.says.verified in (True, False, "quoted", "from memory")
        if figure.says.unit == "percent":
            assert 0 <= figure.value <= 1


def test_comparable_figures_use_the_words_of_the_leaderboard() -> None:
    own = {"lifetime_time_speedup_assumed"}
    for figure in load_published():
        if figure.says.comparable and figure.says.metric not in own:
            parse_metric(figure.says.metric)


def test_configs_are_in_the_words_of_the_methods() -> None:
    known = {entry.name for entry in listing("method")}
    checked = 0
    for figure in load_published():
        if figure.says.comparable and figure.says.config and figure.says.method in known:
            config = get_method(figure.says.method).Config
            parsed = config.parse(figure.says.config).model_dump(mode="json", include=set(figure.says.config))
            assert parsed == figure.says.config
            checked += 1
    assert checked > 20


def test_fields_of_rows_win_over_columns_and_tables(tmp_path: Path) -> None:
    table = TABLE | {
        "columns": [{"network": "conv2"}, {"network": "conv4", "unit": "fraction", "method": "aslp"}],
        "rows": [{"label": "x", "values": [55, 0.5]}, {"label": "y", "method": "dense", "values": [None, [0.2, 0.4]]}],
    }
    figures = load_published(_write(tmp_path / "f.yaml", table))
    found = [(f.value, f.low, f.high, f.says.method, f.says.network, f.citation) for f in figures]
    assert found == [
        (0.55, 0.55, 0.55, "edge_popup", "conv2", "A paper"),
        (0.5, 0.5, 0.5, "aslp", "conv4", "A paper"),
        (pytest.approx(0.3), 0.2, 0.4, "dense", "conv4", "A paper"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verified": "maybe"}, "verified"),
        ({"metrc": "top1"}, "did you mean|metrc"),
        ({"rows": [{"values": [1, 2]}]}, "2 values for 1 columns"),
        ({"paper": "q"}, "not among the papers"),
        ({"unit": "points"}, "unit"),
        ({"sparsity": 1.5}, "sparsity"),
        ({"rows": [{"values": ["high"]}]}, "values"),
        ({"rows": [{"values": [float("nan")]}]}, "values"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_published(_write(tmp_path / "f.yaml", TABLE | change))


@pytest.mark.parametrize("missing", ["source", "verified", "unit", "metric"])
def test_a_figure_without_provenance_is_refused(tmp_path: Path, missing: str) -> None:
    table = {name: value for name, value in TABLE.items() if name != missing}
    with pytest.raises(UserError, match=f"no {missing}"):
        load_published(_write(tmp_path / "f.yaml", table))


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "!!python/object/apply:os.getcwd []", "\x00"])
def test_files_that_are_not_ours_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="yaml"):
        load_published([path])


def test_published_stands_beside_measured_with_the_difference(folder: Any, tmp_path: Path) -> None:
    folder.seeds([0.5, 0.6, 0.7])
    folder.add(0.5, method="dense")
    memory = TABLE | {"verified": "from memory", "rows": [{"label": "guess", "values": [[40, 60]]}]}
    other = TABLE | {"comparable": False, "rows": [{"label": "other protocol", "values": [99]}]}
    elsewhere = TABLE | {"dataset": "cifar10"}
    board = Leaderboard(folder.path)
    figures = load_published(_write(tmp_path / "f.yaml", memory, TABLE, other, elsewhere))
    lines = beside(board, board.rows, ["top1"], figures)
    assert list(lines["label"]) == ["as printed", "guess"]
    assert list(lines["method"]) == ["edge_popup", "edge_popup"]
    assert lines["measured"].tolist() == pytest.approx([0.6, 0.6])
    assert lines["difference"].tolist() == pytest.approx([0.05, 0.1])
    assert list(lines["verified"]) == [True, "from memory"]
    assert list(lines["source"]) == ["table 1", "table 1"]


def test_sparsity_and_config_decide_what_is_comparable(folder: Any, tmp_path: Path) -> None:
    for sparsity, constant in ((0.9, True), (0.895, False), (0.5, True)):
        folder.add(
            scores=[folder.top1(sparsity), Score(metric="sparsity", value=sparsity, variant="full")],
            config={"config": {"sparsity": sparsity, "signed_constant": constant}},
        )
    board = Leaderboard(folder.path)

    def measured(**fields: Any) -> list[float]:
        figures = load_published(_write(tmp_path / "f.yaml", TABLE | fields))
        return sorted(beside(board, board.rows, ["top1"], figures)["measured"])

    assert measured() == [0.5, 0.895, 0.9]
    assert measured(sparsity=0.9) == [0.895, 0.9]
    assert measured(config={"signed_constant": True}) == [0.5, 0.9]
    assert measured(sparsity=0.9, config={"signed_constant": True}) == [0.9]
    assert measured(config={"unknown": 1}) == []
    assert measured(variant="other") == []


SWEEPS = FOLDER.parents[1] / "sweeps" / "published"


@pytest.mark.parametrize("dataset", ["cub", "cars196", "sop"])
def test_distillation_sweeps_meet_their_published_figures(dataset: str, folder: Any) -> None:
    """Runs of the shipped sweep file stand beside the figures of their data set: the distilled student, no other."""
    pairs = [("student", "teacher"), ("student", "student"), ("teacher", "teacher")]
    for spec in read_sweep(SWEEPS / f"resolution_distillation_{dataset}.yaml").expand():
        scores = [
            Score(metric=metric, value=0.5, split="test", variant=query, gallery_variant=gallery)
            for metric in ("map_trapezoid", "recall_at_1")
            for query, gallery in pairs
        ]
        plain = {"method": spec.method, "dataset": spec.dataset, "task": spec.task, "seed": spec.seed}
        network = spec.config["network"]
        folder.add(**plain, network=network, config=spec.recipe(), config_hash=spec.config_hash, scores=scores)
    board = Leaderboard(folder.path)
    lines = beside(board, board.rows, ["map_trapezoid", "recall_at_1"], load_published())
    assert len(lines) == 4
    assert set(lines["dataset"]) == {dataset}
    assert lines["config"].str.contains("ts_aug").all()
    assert set(lines["difference"].round(4)) == {round(0.5 - value, 4) for value in lines["published"]}


@pytest.mark.parametrize(("name", "rows"), [("coco", 2), ("flickr30k", 2), ("three_levels", 4)])
def test_cascade_sweeps_meet_their_published_figures(name: str, rows: int, folder: Any) -> None:
    """Cascades are told by the networks of their levels: those in print stand beside their figures, no others."""
    metric, seen = "first_caption_text_to_image_recall_at_1", set()
    for spec in read_sweep(SWEEPS / f"cascades_{name}.yaml").expand():
        if spec.method == "cascade" or spec.config.get("clip_path", "").endswith("16"):
            variant = "cascade" if spec.method == "cascade" else "dense"
            scores = [Score(metric=metric, value=0.5, split="test", variant=variant)]
            plain = {"method": spec.method, "dataset": spec.dataset, "task": spec.task, "seed": spec.seed}
            folder.add(**plain, network=spec.network, config=spec.recipe(), config_hash=spec.config_hash, scores=scores)
            seen.add((spec.method, spec.network, str(spec.config.get("m"))))
    assert len(seen) > rows // 2
    board = Leaderboard(folder.path)
    lines = beside(board, board.rows, [metric], load_published())
    assert len(lines) == rows
    assert lines["difference"].abs().between(0.1, 0.3).all()
