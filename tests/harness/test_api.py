"""The Python interface: what `import subnetbench` gives, and the examples of every function, which are run."""

import doctest
import fcntl
import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import subnetbench
from subnetbench.harness import api
from subnetbench.harness.api.evaluating import Otherwise

TINY = {"network": "conv2", "image_size": 8, "epochs": 1, "limit_steps": 2}
SWEEP = {
    "name": "small",
    "defaults": {"dataset": "emoji", "config": TINY, "compute": {"device": "cpu"}},
    "runs": [{"method": "edge_popup", "grid": {"config.sparsity": [0.5, 0.8]}}],
}
HELPERS = {"load_plugin", "number", "render_differences"}
"""Exported for the command line, beside the functions of the commands."""
FUNCTIONS = [name for name in api.__all__ if name.islower() and name not in HELPERS]


def _imported(code: str) -> set[str]:
    """The top-level modules that a statement imports in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.partition(".")[0] for line in done.stdout.splitlines()}


@pytest.mark.parametrize(
    "code",
    [
        "import subnetbench; dir(subnetbench)",
        "from subnetbench.harness import api; dir(api); api.methods()",
        "from subnetbench import Leaderboard, compare, load_run, status",
    ],
)
def test_importing_does_not_import_torch(code):
    assert not _imported(code) & {"torch", "accelerate", "optuna", "transformers"}


def test_importing_the_package_imports_next_to_nothing():
    assert not _imported("import subnetbench") & {"numpy", "pandas", "pyarrow", "pydantic", "typer"}


def test_the_names_of_the_package():
    from subnetbench import Leaderboard, compare, load_run, run, sweep, tune

    assert {"Leaderboard", "compare", "load_run", "run", "sweep", "tune"} <= set(dir(subnetbench))
    assert all(map(callable, (Leaderboard, compare, load_run, run, sweep, tune)))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = subnetbench.nothing


def test_names_are_functions_whatever_was_imported_before():
    """A module of the same name in the package would take a function's place once somebody imports it."""
    for package in (subnetbench, subnetbench.harness, api):
        folder = Path(str(package.__file__)).parent
        modules = {path.stem for path in [*folder.glob("*.py"), *(p.parent for p in folder.glob("*/__init__.py"))]}
        assert not modules & set(package.__all__)
        for name in package.__all__:
            assert not isinstance(getattr(package, name), ModuleType), name


def test_the_aliases_in_harness():
    from subnetbench import harness

    for name in harness.__all__:
        assert getattr(harness, name) is getattr(subnetbench, name)


def test_every_command_has_a_function_with_its_options():
    """The command line adds only what it prints; `check` is the conformance suite, which stands above the rest."""
    from subnetbench.harness.cli.app import app

    other_names = {
        "metric": "metrics", "split": "splits", "variant": "variants", "scale": "scales", "as_": "method",
        "format": "formats", "figure_format": "figure_formats",
        "tracker": "trackers", "out": "results", "set_": "config", "input_": "inputs", "upload": "upload_to",
        "search": "space", "objective": "objectives", "constraint": "constraints", "sweep": "results", "root": "data_root",
    }  # fmt: skip
    only_printed = {"json_", "format", "out", "lines", "sources", "tolerance", "watch", "verbose", "quiet", "formats"}
    parts_of_others = {"epochs", "processes", "threads", "device", "precision", "no_final"}
    for command in app.registered_commands:
        name = str(command.callback.__name__)
        if name in ("check", "methods", "datasets", "tune"):
            continue
        known = set(inspect.signature(getattr(api, name)).parameters)
        known |= set(Otherwise.__annotations__) if "otherwise" in known else set()
        for option in inspect.signature(command.callback).parameters:
            assert {option, other_names.get(option, option)} & known or option in only_printed | parts_of_others, (
                f"{name} in Python lacks {option}"
            )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder as the examples expect it: a sweep file, its results, a finished run, and one of several capacities.

    It is made once for all processes of pytest.
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "api"
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            folder.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                _make_results()
    return folder


def _make_results():
    Path("small.yaml").write_text(yaml.safe_dump(SWEEP))
    few = {"image_size": 16, "dim": 16, "capacities": [0.6, 0.2], "recalibration_images": 32, "batch_size": 16}
    retrieval = {"epochs": 1, "limit_steps": 1, **few}
    done = [
        subnetbench.run("edge_popup", "emoji", config=TINY, compute={"device": "cpu"}, results="results/quickstart"),
        subnetbench.run("prunnet", "emoji", config=retrieval, compute={"device": "cpu"}, results="results/retrieval"),
        *subnetbench.sweep("small.yaml").runs,
    ]
    assert [run.status for run in done] == ["finished"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples(name, finished, tmp_path, monkeypatch):
    """Every public function has an example, and it says what comes out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").symlink_to(finished / "small.yaml")
    if name != "plan":
        (tmp_path / "results").symlink_to(finished / "results")
    function = getattr(api, name)
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL | doctest.NORMALIZE_WHITESPACE
    (test,) = doctest.DocTestFinder(recurse=False).find(function, name, module=False)
    assert test.examples, f"{name} has no example"
    said = []
    runner = doctest.DocTestRunner(optionflags=flags)
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_documented_in_full(name):
    """All arguments are described, or the text says whose they are."""
    function = getattr(api, name)
    text = inspect.getdoc(function) or ""
    if "arguments are those of" in text:
        return
    for argument in inspect.signature(function).parameters:
        assert f"{argument}:" in text, f"{name} does not describe {argument}"


@pytest.mark.slow
def test_a_run_that_failed_is_returned(finished, monkeypatch):
    monkeypatch.chdir(finished)
    config = {**TINY, "lr": 1e30, "epochs": 2}
    failed = subnetbench.run("dense", "emoji", config=config, compute={"device": "cpu"}, trackers=["none"])
    assert failed.status == "failed"
    assert "training loss is" in failed.message
    assert failed.scores.empty
    assert failed.history().empty
    with pytest.raises(api.UserError, match="no trained weights"):
        failed.load()


@pytest.mark.slow
def test_a_run_that_starts_from_another(finished, monkeypatch):
    monkeypatch.chdir(finished)
    planned = subnetbench.run("magnitude", "emoji", config=TINY, compute={"device": "cpu"}, dry_run=True)
    assert planned.status == "to do"
    assert not planned.path.exists()


@pytest.mark.slow
def test_the_networks_of_a_run(finished):
    import torch

    run = subnetbench.load_run("prunnet", results=finished / "results" / "retrieval")
    trained = run.load(device="cpu")
    names = [variant.name for variant in trained.variants()]
    assert names == ["dense", "capacity_0.6", "capacity_0.2"]
    network = trained.variant("capacity_0.2").build().eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 16)
    assert [matrix.metric for matrix in run.matrices()] == ["map", "recall_at_1"]
    assert "train/loss" in run.history().columns


@pytest.mark.slow
def test_runs_are_found_by_folder_and_by_id(finished, monkeypatch):
    monkeypatch.chdir(finished)
    (half, more) = subnetbench.sweep("small.yaml", dry_run=True).runs
    assert (half.status, more.status) == ("finished", "finished")
    assert half.spec.config["sparsity"] == 0.5
    assert subnetbench.load_run(more.path).path == subnetbench.load_run(more.id).path.resolve()
    assert subnetbench.load_run(more).id == more.id
    assert [log.run_id for log in api.logs(more)] == [more.id]
    with pytest.raises(api.UserError, match="runs begin with it"):
        subnetbench.load_run("edge_popup", results="results/small")
    with pytest.raises(api.UserError, match="did you mean"):
        subnetbench.load_run(half.id.replace("popup", "popop"))


@pytest.mark.parametrize(
    ("field", "call"),
    {
        "on": lambda: api.run("dense", "emoji", on="moon", dry_run=True),
        "code_changes": lambda: api.run("dense", "emoji", code_changes="some", dry_run=True),
        "seed": lambda: api.run("dense", "emoji", seed=-1, dry_run=True),
        "slots": lambda: api.sweep("small.yaml", slots=0, dry_run=True),
        "runs_per_gpu": lambda: api.sweep("small.yaml", runs_per_gpu=0, dry_run=True),
        "gpus": lambda: api.plan("small.yaml", 0),
        "limit": lambda: api.leaderboard("results/small", limit=0),
        "driver": lambda: api.tune("dense", "emoji", trials=1, driver="moon", dry_run=True),
        "workers": lambda: api.tune("dense", "emoji", trials=1, workers=0, dry_run=True),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "call",
)
def test_options_are_checked_without_the_command_line(field, call, finished, monkeypatch):
    """The parser of the command line knows their bounds too, but a script does not pass it."""
    monkeypatch.chdir(finished)
    with pytest.raises(api.UserError) as caught:
        call()
    assert caught.value.field == field


def test_one_folder_or_several_for_the_status_and_a_folder_for_the_logs(finished, monkeypatch):
    monkeypatch.chdir(finished)
    expected = api.status(["results/small"]).rows
    assert expected
    assert api.status("results/small").rows == api.status(Path("results/small")).rows == expected
    assert next(iter(api.watch(Path("results/small")))).rows == expected
    (log,) = api.logs(Path("results/small/runs", expected[0].run))
    assert log.run_id == expected[0].run


def test_errors_name_what_was_given(finished, monkeypatch, tmp_path):
    monkeypatch.chdir(finished)
    with pytest.raises(api.UserError, match=r"got 'results/small'"):
        api.matrix(Path("results/small"))
    run = api.status("results/small").rows[0].run
    with pytest.raises(api.UserError, match="cannot be written"):
        api.embed(run, tmp_path, results="results/small")


def test_libraries_import_from_the_repository_root(tmp_path):
    """`datasets/` here must not stand in for the package of that name, which other libraries import."""
    root = Path(__file__).resolve().parents[2]
    code = "import transformers, accelerate, timm; import importlib.util as u; s = u.find_spec('datasets'); print(s and s.origin)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=120
    )
    assert str(root / "datasets") not in done.stdout.splitlines()[-1]
