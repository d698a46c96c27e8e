"""Everything that checks the project, part by part, with the minutes that each takes beside its budget.

`python tests/run_all.py [PART ...]` runs all parts, or those named. The tiers of tests are folders, which
`tests/conftest.py` turns into pytest markers.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PYTEST = [sys.executable, "-m", "pytest", "-q"]
PARALLEL = ["-n", str(min(os.cpu_count() or 1, 4))]
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


PARTS = (
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
    Part("unit and golden", 9, ([*PYTEST, *PARALLEL, "-m", "unit or golden", "tests", *UNCOLLECTED],), True),
    Part("docs", 2, ([*PYTEST, *PARALLEL, "tests/docs"],)),
    Part("packaging", 1, ([*PYTEST, "tests/packaging"],)),
    Part("conformance", 12, ([*PYTEST, *PARALLEL, "tests/conformance"],), True),
    Part("browser", 3, ([*PYTEST, "tests/browser"],), True),
    Part("slurm", 6, ([*PYTEST, "-n", "2", "--dist", "loadfile", "tests/slurm"],), True),
    Part("end to end", 6, ([*PYTEST, "-n", "2", "--dist", "loadfile", "tests/end_to_end"],), True),
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


def run(part: Part) -> tuple[bool, float]:
    print(f"\n=== {part.name}", flush=True)
    started = time.monotonic()
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    results = [subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode for command in part.commands]
    return all(code == 0 for code in results), (time.monotonic() - started) / 60


def main() -> int:
    names = [part.name for part in PARTS]
    wanted = sys.argv[1:] or names
    if unknown := set(wanted) - set(names):
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    parts = [part for part in PARTS if part.name in wanted]
    if any(part.needs_debian_packages for part in parts):
        install_debian_packages()
    rows = [(part, *run(part)) for part in parts]
    print(f"\n{'part':18}{'result':>8}{'minutes':>10}{'budget':>8}")
    for part, ok, minutes in rows:
        print(f"{part.name:18}{'ok' if ok else 'FAILED':>8}{minutes:10.1f}{part.budget_minutes:8g}")
    failed = sum(not ok for _, ok, _ in rows)
    print(f"parts: {len(rows) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
