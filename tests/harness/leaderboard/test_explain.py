"""`subnetbench explain`: in what two rows differ."""

import json
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from subnetbench.harness import api
from subnetbench.harness.cli.app import app
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.numerics import Numerics
from subnetbench.harness.data.content import DataContent, SplitContent
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.provenance import CodeRead, Environment, FilesRead, Provenance

CODE = CodeRead(method="m1", dataset="d1", harness="h1", modules={"methods.edge_popup": "1", "core.rng": "2"})
WHOLE = Provenance(
    data=DataContent({"train": SplitContent(500, "t1")}),
    files=FilesRead(files={"weights": "w1"}),
    code=CODE,
    numerics=Numerics("cuda", "", "highest", False, False, False, 1, None),
    environment=Environment(device="H100", cpu="EPYC", driver="570", libraries={"torch": "2.5"}),
)
OTHER = replace(
    WHOLE,
    files=FilesRead(files={"weights": "w2"}),
    code=replace(CODE, method="m2", modules={"methods.edge_popup": "9", "core.rng": "2"}),
    numerics=replace(WHOLE.numerics, convolution_tf32=True),
    environment=replace(WHOLE.environment, driver="580"),
)


def _columns(provenance: Provenance) -> dict[str, str]:
    precision = {"precision": provenance.numerics.precision} if provenance.numerics else {}
    return dict(vars(provenance.columns)) | precision


def _run(*words: Any) -> Any:
    return CliRunner().invoke(app, ["explain", *map(str, words)])


@pytest.fixture
def two(folder: Any) -> Any:
    """Two rows of three seeds each that differ in everything that a run stands on, in config and in what they spent."""
    folder.seeds([0.1, 0.2, 0.3], **_columns(WHOLE), versions={"torch": "2.5"}, training_macs=100.0, images_seen=10.0)
    changed = {"config": {"config": {"sparsity": 0.9}}, "versions": {"torch": "2.6"}}
    folder.seeds([0.1, 0.2, 0.3], **_columns(OTHER), **changed, training_macs=150.0, images_seen=10.05)
    return folder


def test_all_that_differs_is_named_and_nothing_else(two: Any) -> None:
    found = api.explain("run1", "run4", folder=two.path)
    values = {(line.part, line.name): (line.a, line.b) for line in found.differences}
    digests = {("files", "files_digest"), ("code", "code_digest")}
    assert {key: values[key] for key in values if key not in digests} == {
        ("config", "config.sparsity"): ("0.5", "0.9"),
        ("files", "weights"): ("w1", "w2"),
        ("code", "method"): ("m1", "m2"),
        ("numerics", "numerics"): ("cuda, fp32", "cuda, tf32 (convolutions only)"),
        ("numerics", "convolution tf32"): ("False", "True"),
        ("libraries", "torch"): ("2.5", "2.6"),
        ("machine", "driver"): ("570", "580"),
        ("spent", "training_macs"): ("100", "150"),
    }
    assert digests <= set(values)
    assert found.unknown == ()
    effects = {line.part: line.effect for line in found.differences}
    assert effects["code"] == effects["config"] == effects["files"] == effects["numerics"] == "another row"
    assert effects["libraries"] == effects["machine"] == "a note; times are not averaged"


def test_single_modules_come_from_the_run_folders(two: Any) -> None:
    for run, provenance in (("run1", WHOLE), ("run4", OTHER)):
        folder = RunFolder(two.path, run)
        folder.create("{}")
        folder.write_provenance(provenance)
    found = api.explain("run1", "run4", folder=two.path)
    modules = [(line.name, line.a, line.b) for line in found.differences if line.name.startswith("methods.")]
    assert modules == [("methods.edge_popup", "1", "9")]
    assert not [line for line in found.differences if line.name == "core.rng"]


def test_a_run_folder_of_a_later_attempt_says_nothing_of_an_earlier_one(two: Any) -> None:
    folder = RunFolder(two.path, "run1")
    folder.create("{}")
    folder.write_provenance(OTHER)
    found = api.explain("run1", "run4", folder=two.path)
    assert ("m1", "m2") in [(line.a, line.b) for line in found.differences if line.name == "method"]


def test_libraries_are_compared_as_records_tell_them_also_where_only_one_run_folder_is_left(two: Any) -> None:
    folder = RunFolder(two.path, "run4")
    folder.create("{}")
    folder.write_provenance(OTHER)
    lines = [line for line in api.explain("run1", "run4", folder=two.path).differences if line.name == "torch"]
    assert [(line.part, line.a, line.b) for line in lines] == [("libraries", "2.5", "2.6")]


def test_on_the_command_line(two: Any) -> None:
    shown = _run("run1", "run4", "--folder", two.path)
    assert shown.exit_code == 0
    assert "edge_popup with conv2 on emoji, seeds 0, 1, 2 (run1 and 2 more)" in " ".join(shown.output.split())
    plain = json.loads(_run("run1", "run4", "--folder", two.path, "--json").output)
    assert {line["part"] for line in plain["differences"]} >= {
        "config",
        "code",
        "numerics",
        "files",
        "libraries",
        "spent",
    }
    filters = ("--a", "sparsity == 0.5", "--b", "sparsity == 0.9", "--folder", two.path)
    assert json.loads(_run(*filters, "--json").output) == plain
    assert _run(*filters, "--format", "csv").output.splitlines()[0] == "part,name,a,b,effect"
    by_folder = RunFolder(two.path, "run1")
    by_folder.create("{}")
    (RunFolder(two.path, "run4")).create("{}")
    assert json.loads(_run(by_folder.path, RunFolder(two.path, "run4").path, "--json").output) == plain


def test_two_runs_of_one_row_are_compared_themselves(folder: Any) -> None:
    folder.seeds([0.1, 0.2], device="X", **_columns(WHOLE))
    folder.add(0.3, seed=2, device="Y", **_columns(WHOLE))
    found = api.explain("run1", "run3", folder=folder.path)
    assert found.same_row
    assert [(line.name, line.a, line.b) for line in found.differences] == [("device", "X", "Y")]
    assert "Two runs of one row" in found.text()
    assert "They agree in all that is known." in api.explain("run1", "run2", folder=folder.path).text()


def test_one_run_id_in_two_rows_explains_them(folder: Any) -> None:
    folder.add(0.1, run_id="same", **_columns(WHOLE))
    folder.add(0.2, run_id="same", **_columns(OTHER))
    found = api.explain("same", folder=folder.path)
    assert ("m1", "m2") in [(line.a, line.b) for line in found.differences if line.name == "method"]
    assert found.a.endswith("(same)")
    folder.add(0.2, run_id="other", seed=1, **_columns(WHOLE))
    with pytest.raises(UserError, match="stands for 2 rows: name them by --a and --b"):
        api.explain("same", "other", folder=folder.path)


def test_what_an_old_record_does_not_tell_is_said(folder: Any) -> None:
    folder.add(0.1)
    folder.add(0.2, **_columns(WHOLE), versions={"torch": "2.5"})
    found = api.explain("run1", "run2", folder=folder.path)
    assert set(found.unknown) == {"files", "code", "numerics", "libraries", "spent"}
    assert {(line.name, line.a) for line in found.differences if line.part != "machine"} == {
        ("files_digest", "unknown"),
        ("code_digest", "unknown"),
        ("numerics", "unknown"),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run1",), "stands for one row only"),
        (("nothing", "run1"), "there is no run 'nothing'"),
        (("--a", "method == 'edge_popup'", "--b", "sparsity == 0.9"), "--a: selects 2 rows (of run1, run4), not one"),
        (("--a", "sparsity == 0.5"), "name runs of two rows, or give filters for both"),
        (("run1", "run4", "--a", "seed == 1", "--b", "seed == 2"), "name runs of two rows, or give filters for both"),
        ((), "name runs of two rows, or give filters for both"),
    ],
)
def test_what_is_no_pair_of_rows_is_refused(two: Any, words: tuple[str, ...], message: str) -> None:
    result = _run(*words, "--folder", two.path)
    assert result.exit_code != 0
    assert message in str(result.exception)
