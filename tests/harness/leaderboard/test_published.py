import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.metrics import parse_metric
from subnetbench.harness.data.registry import get_dataset
from subnetbench.harness.execution.sweep_file import read_sweep
from subnetbench.harness.leaderboard import Leaderboard, load_published
from subnetbench.harness.leaderboard.beside import beside
from subnetbench.harness.leaderboard.published import FOLDER
from subnetbench.harness.method.registry import METHODS, get_method
from subnetbench.harness.method.resolve import network_of
from subnetbench.harness.records import Score

SUBGROUPS = "subgroups of unseen concepts"
TABLE: dict[str, Any] = {
    "source": "table 1",
    "paper": "p",
    "verified": True,
    "unit": "percent",
    "metric": "top1",
    "method": "edge_popup",
    "dataset": "emoji",
    "split": "test",
    "protocol": "groups of unseen concepts",
    "epochs": 3,
    "images": 800,
    "image_size": "native",
    "rows": [{"label": "as printed", "values": [55]}],
}


BUDGET = "3 epochs x 800 images"


def _write(path: Path, *tables: dict[str, Any], **more: Any) -> list[Path]:
    path.write_text(yaml.safe_dump({"papers": {"p": "A paper"}, "tables": list(tables), **more}))
    return [path]


def test_every_shipped_file_loads_and_says_where_it_is_from() -> None:
    files = sorted(FOLDER.glob("*.yaml"))
    assert len(files) == 6
    values = load_published()
    assert len(values) == len({(f.stated.source, f.stated.label, f.stated.note, repr(f.stated)) for f in values})
    for value in values:
        assert value.stated.source
        assert value.stated.label
        assert value.stated.verified in (True, False, "quoted", "from memory")
        if value.stated.unit == "percent":
            assert 0 <= value.value <= 1


def test_comparable_values_use_the_words_of_the_leaderboard() -> None:
    own = {"lifetime_time_speedup_assumed"}
    for value in load_published():
        if value.stated.comparable and value.stated.metric not in own:
            parse_metric(value.stated.metric)


def test_configs_are_in_the_words_of_the_methods() -> None:
    known = {entry.name for entry in METHODS.listing()}
    checked = 0
    for value in load_published():
        if value.stated.comparable and value.stated.config and value.stated.method in known:
            config = get_method(value.stated.method).Config
            parsed = config.parse(value.stated.config).model_dump(mode="json", include=set(value.stated.config))
            assert parsed == value.stated.config
            checked += 1
    assert checked > 20


def test_fields_of_rows_win_over_columns_and_tables(tmp_path: Path) -> None:
    table = TABLE | {
        "columns": [{"network": "conv2"}, {"network": "conv4", "unit": "fraction", "method": "aslp"}],
        "rows": [{"label": "x", "values": [55, 0.5]}, {"label": "y", "method": "dense", "values": [None, [0.2, 0.4]]}],
    }
    values = load_published(_write(tmp_path / "f.yaml", table))
    found = [(f.value, f.low, f.high, f.stated.method, f.stated.network, f.citation) for f in values]
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
def test_a_value_without_provenance_is_refused(tmp_path: Path, missing: str) -> None:
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
    folder.seeds([0.5, 0.6, 0.7], budget=BUDGET)
    folder.add(0.5, method="dense", budget=BUDGET)
    memory = TABLE | {"verified": "from memory", "rows": [{"label": "guess", "values": [[40, 60]]}]}
    other = TABLE | {"comparable": False, "rows": [{"label": "other", "note": "another protocol", "values": [99]}]}
    elsewhere = TABLE | {"dataset": "cifar10"}
    board = Leaderboard(folder.path)
    files = _write(tmp_path / "f.yaml", memory, TABLE, other, elsewhere)
    found = beside(board, board.rows, ["top1"], load_published(files, from_memory=True))
    assert [(line.label, line.reason, line.difference) for line in found.others] == [
        ("other", "another protocol", None)
    ]
    assert found.notes == ["1 published values of these methods are on other data: cifar10 1."]
    lines = found.comparable
    assert [line.label for line in lines] == ["as printed", "guess"]
    assert [line.method for line in lines] == ["edge_popup", "edge_popup"]
    assert [line.measured for line in lines] == pytest.approx([0.6, 0.6])
    assert [line.difference for line in lines] == pytest.approx([0.05, 0.1])
    assert [line.verified for line in lines] == [True, "from memory"]
    assert [line.source for line in lines] == ["table 1", "table 1"]
    usual = beside(board, board.rows, ["top1"], load_published(files))
    assert [line.label for line in usual.lines] == ["as printed", "other"]
    assert usual.notes[0].startswith("1 published value of these rows left out: entered from memory")


@pytest.mark.parametrize(
    ("stated", "here", "reason"),
    [
        ({}, {}, ""),
        ({}, {"budget": "1 epochs x 500 images"}, "epochs: 3 there, 1 here; training images: 800 there, 500 here"),
        ({}, {"budget": "none of its own"}, "epochs: 3 there, 0 here; training images: 800 there, not known here"),
        ({}, {"budget": ""}, "epochs: 3 there, not known here; training images: 800 there, not known here"),
        ({"images": 1200}, {"budget": "3 epochs x 1,200 images, 6.8 TMACs"}, ""),
        ({}, {"protocol": SUBGROUPS}, f"protocol: groups of unseen concepts there, {SUBGROUPS} here"),
        ({"protocol": ""}, {}, "protocol of the source not known"),
        ({"split": "validation"}, {}, "split: validation there, test here"),
        ({"epochs": None}, {}, "epochs of the source not known"),
        ({"images": None}, {}, "training images of the source not known"),
        ({"image_size": None}, {}, "image size of the source not known"),
        ({"image_size": 224}, {}, "image size: 224 there, native here"),
        ({}, {"config": {"config": {"image_size": 64}}}, "image size: native there, 64 here"),
        ({"image_size": 64}, {"config": {"config": {"image_size": 64}}}, ""),
        ({}, {"config": {"config": {"limit_steps": 5}}}, "limit_steps 5 cuts its epochs here"),
        ({"epochs": 0, "images": None, "image_size": None}, {"budget": "0 epochs x 500 images"}, ""),
    ],
)
def test_only_what_was_measured_alike_is_compared(
    stated: dict[str, Any], here: dict[str, Any], reason: str, folder: Any, tmp_path: Path
) -> None:
    folder.seeds([0.5, 0.6], **{"budget": BUDGET, **here})
    board = Leaderboard(folder.path)
    table = {name: value for name, value in (TABLE | stated).items() if value is not None}
    (line,) = beside(board, board.rows, ["top1"], load_published(_write(tmp_path / "f.yaml", table))).lines
    assert (line.reason, line.comparable) == (reason, not reason)
    assert line.difference is None if reason else line.difference == pytest.approx(0)


def test_every_source_says_where_it_was_read() -> None:
    places = re.compile(r"\b(table|figure|README|abstract|logs|issue|text|notes)\b")
    assert [value.stated.source for value in load_published() if not places.search(value.stated.source)] == []


def test_what_is_from_memory_is_left_out_unless_asked_for() -> None:
    memory = [value for value in load_published() if value.stated.verified == "from memory"]
    assert len(memory) == 28
    assert not any(value.shown for value in memory)
    assert all(value.shown for value in load_published() if value.stated.verified != "from memory")
    assert all(value.shown for value in load_published(from_memory=True))


def test_sparsity_and_config_decide_what_is_comparable(folder: Any, tmp_path: Path) -> None:
    for sparsity, constant in ((0.9, True), (0.895, False), (0.5, True)):
        folder.add(
            scores=[folder.top1(sparsity), Score(metric="sparsity", value=sparsity, variant="full")],
            config={"config": {"sparsity": sparsity, "signed_constant": constant}},
            budget=BUDGET,
        )
    board = Leaderboard(folder.path)

    def measured(**fields: Any) -> list[float]:
        values = load_published(_write(tmp_path / "f.yaml", TABLE | fields))
        return sorted(line.measured for line in beside(board, board.rows, ["top1"], values).lines)

    assert measured() == [0.5, 0.895, 0.9]
    assert measured(sparsity=0.9) == [0.895, 0.9]
    assert measured(config={"signed_constant": True}) == [0.5, 0.9]
    assert measured(sparsity=0.9, config={"signed_constant": True}) == [0.9]
    assert measured(config={"unknown": 1}) == []
    assert measured(variant="other") == []


PROTOCOLS = {"coco": "val2017 as a whole, 2017 captions", "flickr30k": "the whole collection"}
SWEEPS = FOLDER.parents[1] / "sweeps" / "published"


@pytest.mark.parametrize("dataset", ["cub", "cars196", "sop"])
def test_distillation_sweeps_meet_their_published_values(dataset: str, folder: Any) -> None:
    """Runs of the shipped sweep file stand beside the values of their data set: the distilled student, no other."""
    pairs = [("student", "teacher"), ("student", "student"), ("teacher", "teacher")]
    for spec in read_sweep(SWEEPS / f"resolution_distillation_{dataset}.yaml").expand():
        scores = [
            Score(metric=metric, value=0.5, split="test", variant=query, gallery_variant=gallery)
            for metric in ("map_trapezoid", "recall_at_1")
            for query, gallery in pairs
        ]
        plain = {"method": spec.method, "dataset": spec.dataset, "task": spec.task, "seed": spec.seed}
        network = spec.config["network"]
        dataset_class = get_dataset(dataset)
        plain["protocol"] = f"{dataset_class.protocol}; validation not held out"
        plain["budget"] = f"{spec.config['epochs']} epochs x {dataset_class.counts['train images']} images"
        folder.add(**plain, network=network, config=spec.recipe(), config_hash=spec.config_hash, scores=scores)
    board = Leaderboard(folder.path)
    found = beside(board, board.rows, ["map_trapezoid", "recall_at_1"], load_published())
    lines = found.comparable
    assert len(lines) == 4
    assert {line.dataset for line in lines} == {dataset}
    assert all("ts_aug" in line.config for line in lines)
    assert all(line.difference == pytest.approx(0.5 - line.published) for line in lines)


@pytest.mark.parametrize(("name", "rows"), [("coco", 2), ("flickr30k", 2), ("three_levels", 4)])
def test_cascade_sweeps_meet_their_published_values(name: str, rows: int, folder: Any) -> None:
    """Cascades are identified by the networks of their levels: those in print stand beside their values, no others."""
    metric, seen = "first_caption_text_to_image_recall_at_1", set()
    for spec in read_sweep(SWEEPS / f"cascades_{name}.yaml").expand():
        if spec.method == "cascade" or spec.config.get("clip_path", "").endswith("16"):
            variant = "cascade" if spec.method == "cascade" else "dense"
            scores = [Score(metric=metric, value=0.5, split="test", variant=variant)]
            plain = {"method": spec.method, "dataset": spec.dataset, "task": spec.task, "seed": spec.seed}
            plain["protocol"] = PROTOCOLS[spec.dataset]
            plain["budget"] = "none of its own" if spec.method == "cascade" else "0 epochs x 118287 images"
            folder.add(
                **plain, network=network_of(spec), config=spec.recipe(), config_hash=spec.config_hash, scores=scores
            )
            seen.add((spec.method, network_of(spec), str(spec.config.get("m"))))
    assert len(seen) > rows // 2
    board = Leaderboard(folder.path)
    lines = beside(board, board.rows, [metric], load_published()).comparable
    assert len(lines) == rows
    assert all(0.1 <= abs(line.difference) <= 0.3 for line in lines)


def test_the_command_says_why_not_and_leaves_out_what_is_from_memory(folder: Any) -> None:
    """A run of one epoch on 500 images gets no difference from a paper's value."""
    recipe = {"config": {"weight_rescale": True, "signed_constant": "all"}}
    folder.seeds([0.4, 0.5], method="supermask", dataset="cifar10", budget="1 epochs x 500 images", config=recipe)
    command = ["leaderboard", str(folder.path), "--json"]

    def lines(*options: str) -> Any:
        done = CliRunner().invoke(app, [*command, *options])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    assert lines()["published"] == []
    usual = lines("--published")
    assert [line["verified"] for line in usual["published"]] == ["quoted"]
    assert usual["published"][0]["difference"] is None
    assert "epochs of the source not known" in usual["published"][0]["reason"]
    assert any("1 published value of these rows left out: entered from memory" in note for note in usual["notes"])
    assert [line["verified"] for line in lines("--from-memory")["published"]] == ["quoted", "from memory"]
