"""The energy that a process's device has taken, where the device tells it: NVML for NVIDIA GPUs, RAPL for CPUs.

Both count the whole device (for RAPL all processor packages of the machine), whatever else runs on it. NVML is read
through the module `pynvml` (package `nvidia-ml-py`) where it is installed.
"""

import importlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

RAPL_FOLDER = Path("/sys/class/powercap")


@dataclass
class _Counter:
    """A counter of joules of one device, which begins again from 0 after `wraps_at` (None: never)."""

    device: str
    read: Callable[[], float]
    wraps_at: float | None = None
    last: float = field(init=False)

    def __post_init__(self) -> None:
        self.last = self.read()

    def since_last(self) -> float:
        now = self.read()
        gone = now - self.last
        self.last = now
        return gone + self.wraps_at if gone < 0 and self.wraps_at is not None else max(gone, 0.0)


class EnergyMeter:
    """Adds up the energy of this process's device from the moment it is made. Sample it more often than RAPL begins
    again from 0, which takes minutes at the least."""

    def __init__(self, device: torch.device, rapl: Path = RAPL_FOLDER) -> None:
        try:
            self._counters = _gpu(device) if device.type == "cuda" else _packages(rapl)
        except Exception:  # an NVML of another version, a driver that is gone, files that must not be read
            self._counters = []
        self._joules = 0.0

    @property
    def device(self) -> str:
        """What is measured, so that ranks that share it count it once; empty where nothing is."""
        return " ".join(counter.device for counter in self._counters)

    def sample(self) -> float | None:
        """Joules so far; None where the device does not tell."""
        if not self._counters:
            return None
        try:
            self._joules += sum(counter.since_last() for counter in self._counters)
        except Exception:
            self._counters = []
            return None
        return self._joules


def _gpu(device: torch.device) -> list[_Counter]:
    nvml = importlib.import_module("pynvml")
    nvml.nvmlInit()
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    handle = nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
    return [_Counter(f"{socket.gethostname()}/{uuid}", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)]


def _packages(folder: Path) -> list[_Counter]:
    # `intel-rapl:0` is a package, of which `intel-rapl:0:1` is a part.
    return [
        _Counter(
            f"{socket.gethostname()}/{package.name}",
            lambda file=package / "energy_uj": int(file.read_text()) / 1e6,  # type: ignore[misc]
            int((package / "max_energy_range_uj").read_text()) / 1e6,
        )
        for package in sorted(folder.glob("intel-rapl:*"))
        if package.name.count(":") == 1
    ]
