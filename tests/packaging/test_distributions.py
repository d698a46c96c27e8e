"""What is released works: sdist and wheel are built, checked, installed outside the checkout, and used there."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("harness", "methods", "datasets")
# Neither what git ignores nor what is of no use to a build.
LEFT_OUT = ("*.egg-info", ".*", "__pycache__", "build", "dist", "docs", "reproduced", "sweeps", "tests")


@dataclass(frozen=True)
class Distributions:
    sdist: Path
    wheel: Path

    def names(self) -> set[str]:
        """Paths of the files in the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())


def call(command: list[str | Path], folder: Path, **environment: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """The sdist of a copy of the checkout, and the wheel that is built from the sdist."""
    source = tmp_path_factory.mktemp("source") / "subnetbench"

    def left_out(folder: str, names: list[str]) -> set[str]:
        return set(shutil.ignore_patterns(*LEFT_OUT)(folder, names)) if Path(folder) == ROOT else {"__pycache__"}

    shutil.copytree(ROOT, source, ignore=left_out)
    for path in (source / "results").iterdir():
        if path.name != "published":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    out = tmp_path_factory.mktemp("dist")
    call([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source], out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return Distributions(sdist, wheel)


@pytest.fixture(scope="module")
def installed(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh environment with the wheel.

    Dependencies are borrowed from the environment of the tests, by a path file: theirs are not read a second time, so
    the editable installation of the checkout is not found through it.
    """
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", distributions.wheel]
    call([sys.executable, "-m", "pip", "--python", python, *install], environment)
    (site,) = (environment / "lib").glob("python*/site-packages")
    outside = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    (site / "dependencies.pth").write_text("\n".join(outside) + "\n")
    return environment / "bin"


def test_metadata_is_sound(distributions: Distributions) -> None:
    call(
        [sys.executable, "-m", "twine", "check", "--strict", distributions.sdist, distributions.wheel],
        distributions.wheel.parent,
    )


def test_wheel_holds_the_packages_and_nothing_else(distributions: Distributions) -> None:
    sources = {"__init__.py"} | {
        str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
    }
    names = distributions.names()
    assert {name.removeprefix("subnetbench/") for name in names if name.endswith(".py")} == sources
    assert not [name for name in names if "tests" in name.split("/")]


def test_wheel_holds_notices_and_data(distributions: Distributions) -> None:
    names = distributions.names()
    information = {name.partition("/")[2] for name in names if ".dist-info/" in name}
    licences = {f"licenses/LICENSES/{path.name}" for path in (ROOT / "LICENSES").iterdir()}
    assert information >= {"licenses/LICENSE", "licenses/NOTICE"} | licences
    wanted = [ROOT / "py.typed", *(ROOT / "results" / "published").iterdir()]
    for package in PACKAGES:
        wanted += [
            path
            for path in (ROOT / package).rglob("*")
            if path.is_file() and path.suffix not in (".py", ".pyc") and ".mypy_cache" not in path.parts
        ]
    assert {f"subnetbench/{path.relative_to(ROOT)}" for path in wanted} <= names


def test_sdist_can_be_built_again(distributions: Distributions) -> None:
    """The wheel was built from it; it also carries what says under which terms."""
    with tarfile.open(distributions.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"pyproject.toml", "README.md", "LICENSE", "NOTICE", "py.typed"}


def test_the_installed_program_runs(installed: Path, tmp_path: Path) -> None:
    """Listings, a run, the leaderboard and a report, far from the checkout and with a home of its own."""

    def subnetbench(*arguments: str) -> str:
        return call([installed / "subnetbench", *arguments], tmp_path, HOME=str(tmp_path), PYTHONSAFEPATH="")

    where = call([installed / "python", "-c", "import subnetbench; print(subnetbench.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert "edge_popup" in subnetbench("methods")
    subnetbench("run", "dense", "emoji", "--set", "network=conv2,image_size=8", "--data", "train_size=80", "--epochs=1")
    assert "dense" in subnetbench("leaderboard", "results")
    subnetbench("report", "results", "--out", "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000
