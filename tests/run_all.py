"""Everything that checks the project, part by part, with the minutes that each takes beside its budget.

`python tests/run_all.py [PART ...]` runs all parts, or those named. The tiers of tests are folders, which
`tests/conftest.py` turns into pytest markers. Tests on a cluster mostly wait, so they run beside the parts that follow
them; what they print appears when they have ended.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PYTEST = [sys.executable, "-m", "pytest", "-q"]
# One process more than cores: many tests wait for processes that they start.
PARALLEL = ["-n", str(min((os.cpu_count() or 1) + 1, 4))]
# Folders whose tests are parts of their own.
UNCOLLECTED = [
    f"--ignore=tests/{folder}" for folder in ("browser", "conformance", "docs", "end_to_end", "packaging", "slurm")
]
DEBIAN_PACKAGES = {
    "chromium": "/usr/bin/chromium",
    "dataset-fashion-mnist": "/usr/share/datasets/fashion-mnist",
    "mariadb-server": "/usr/sbin/mariadbd",
    "munge": "/usr/sbin/munged",
    "postgresql": "/usr/lib/postgresql",
    "slurm-wlm": "/usr/sbin/slurmctld",
    "slurmdbd": "/usr/sbin/slurmdbd",
}


@dataclass(frozen=True)
class Part:
    name: str
    budget_minutes: float
    commands: tuple[list[str], ...]
    needs_debian_packages: bool = False
    beside_others: bool = False
    """Whether it runs beside the parts that follow it."""


PARTS = (
    Part("slurm", 8, ([*PYTEST, "-n", "2", "--dist", "loadfile", "tests/slurm"],), True, beside_others=True),
    Part(
        "static",
        3,
        (
            [str(BIN / "ruff"), "check", "."],
            [str(BIN / "ruff"), "format", "--check", "."],
            [sys.executable, "-m", "codespell_lib"],
            [sys.executable, "-m", "vulture"],
            [str(BIN / "mypy")],
        ),
    ),
    Part("docs", 2, ([*PYTEST, *PARALLEL, "tests/docs"],)),
    Part("packaging", 1, ([*PYTEST, "tests/packaging"],)),
    Part("browser", 3, ([*PYTEST, "tests/browser"],), True),
    Part("unit and golden", 9, ([*PYTEST, *PARALLEL, "-m", "unit or golden", "tests", *UNCOLLECTED],), True),
    Part("conformance", 6, ([*PYTEST, *PARALLEL, "--dist", "loadgroup", "tests/conformance"],), True),
    Part("end to end", 12, ([*PYTEST, *PARALLEL, "--dist", "loadfile", "tests/end_to_end"],), True),
)


def install_debian_packages() -> None:
    """Data that Debian ships, where that is possible; otherwise say what will be skipped."""
    missing = [name for name, path in DEBIAN_PACKAGES.items() if not Path(path).exists()]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"not installed, so their tests are skipped: {', '.join(missing)}", flush=True)
        return
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-q", "-y", *missing]):
        subprocess.run(
            command, check=False, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        )


@dataclass
class Result:
    part: Part
    ok: bool = False
    minutes: float = 0.0
    printed: str = ""


def run(result: Result) -> None:
    """Run the commands of a part; one that runs beside others keeps what it prints."""
    started = time.monotonic()
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+", errors="replace") as kept:
        output = {"stdout": kept, "stderr": subprocess.STDOUT} if result.part.beside_others else {}
        codes = [
            subprocess.run(command, cwd=ROOT, env=environment, check=False, **output).returncode
            for command in result.part.commands
        ]
        kept.seek(0)
        result.printed = kept.read()
    result.ok = not any(codes)
    result.minutes = (time.monotonic() - started) / 60


def run_all(parts: list[Part]) -> list[Result]:
    """Run parts in their order, and print what those beside them printed at the end."""
    results = [Result(part) for part in parts]
    beside = {
        result.part.name: threading.Thread(target=run, args=[result]) for result in results if result.part.beside_others
    }
    for thread in beside.values():
        thread.start()
    for result in results:
        if result.part.name not in beside:
            print(f"\n=== {result.part.name}", flush=True)
            run(result)
    for result in results:
        if result.part.name in beside:
            beside[result.part.name].join()
            print(f"\n=== {result.part.name}\n{result.printed}", flush=True)
    return results


def main() -> int:
    names = [part.name for part in PARTS]
    wanted = sys.argv[1:] or names
    if unknown := set(wanted) - set(names):
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    parts = [part for part in PARTS if part.name in wanted]
    if any(part.needs_debian_packages for part in parts):
        install_debian_packages()
    results = run_all(parts)
    print(f"\n{'part':18}{'result':>8}{'minutes':>10}{'budget':>8}")
    for each in results:
        print(f"{each.part.name:18}{'ok' if each.ok else 'FAILED':>8}{each.minutes:10.1f}{each.part.budget_minutes:8g}")
    failed = sum(not each.ok for each in results)
    print(f"parts: {len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
