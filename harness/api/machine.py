"""What this machine offers: versions, devices, search libraries, schedulers, folders."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from subnetbench.harness.core import environment
from subnetbench.harness.core.paths import data_folder


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: whether it is as it should be, and what was found."""

    name: str
    ok: bool
    detail: str


def doctor(data_root: Path | str | None = None) -> list[Finding]:
    """Versions, devices, faiss, SLURM, and whether the folders can be written.

    Args:
        data_root: Folder of data sets; None: `$SUBNETBENCH_DATA`, or a folder in the user's cache.

    Returns:
        All findings; one that is not `ok` keeps something from working.

    Example:
        >>> from subnetbench.harness import api
        >>> all(finding.ok for finding in api.doctor() if finding.name in ("python", "torch", "results"))
        True
    """
    return [*_versions(), *_devices(), _faiss(), _slurm(), *_folders(data_folder(data_root))]


def _versions() -> Iterator[Finding]:
    for name, number in environment.versions().items():
        yield Finding(name, True, number)


def _cores() -> str:
    usable, present = environment.usable_cpus(), os.cpu_count() or 1
    return str(usable) if usable == present else f"{usable} of {present}, the others are not for this process"


def _devices() -> Iterator[Finding]:
    yield Finding("CPU cores", True, _cores())
    try:
        import torch
        import torchvision
    except (ImportError, RuntimeError) as error:
        yield Finding("torch", False, f"does not import: {error}")
        return
    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except RuntimeError:
        yield Finding("torchvision", False, "was built for another torch; install matching releases of the two")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Finding("GPUs", True, ", ".join(gpus) or "none (runs use the CPU)")


def _faiss() -> Finding:
    flavours = []
    for package in ("faiss-cpu", "faiss-gpu-cu12"):
        try:
            flavours.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    if len(flavours) > 1:
        return Finding("faiss", False, f"{' and '.join(flavours)} overwrite each other; uninstall both, install one")
    return Finding("faiss", True, flavours[0] if flavours else "not installed (exact search by torch)")


def _slurm() -> Finding:
    found = shutil.which("sbatch")
    return Finding("SLURM", True, found or "no sbatch found (runs stay on this machine)")


def _folders(data_root: Path) -> Iterator[Finding]:
    for name, path in (
        ("data root", data_root),
        ("results", Path("results")),
        ("temporary", Path(tempfile.gettempdir())),
    ):
        nearest = path
        while not nearest.exists():
            nearest = nearest.parent
        writable = nearest.is_dir() and os.access(nearest, os.W_OK)
        free = shutil.disk_usage(nearest).free / 1e9
        yield Finding(
            name, writable, f"{path.absolute()}, {'writable' if writable else 'read-only'}, {free:.0f} GB free"
        )
