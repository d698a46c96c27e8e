"""The processes of one run, through Accelerate: one process a rank, on GPUs or on the CPU with gloo.

A `World` owns the device, the process group and the precision. Training code sees averaged gradients and
gathered outputs; nothing above this module calls `torch.distributed`.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from subnetbench.harness.core.errors import RunFailure, UserError
from subnetbench.harness.core.numerics import Numerics
from subnetbench.harness.distributed.accelerate_adapter import Ranks
from subnetbench.harness.distributed.allocator import keep_freed_memory
from subnetbench.harness.distributed.compute import GPU_REQUESTED, Compute
from subnetbench.harness.distributed.numerics import read_numerics
from subnetbench.harness.distributed.tracked import Tracked

# A rank that died takes its peers down at the next collective, or after this long.
COLLECTIVE_TIMEOUT = timedelta(seconds=int(os.environ.get("SUBNETBENCH_COLLECTIVE_TIMEOUT", "50")))


class World:
    """One rank's view of a run's processes. `rank` 0 writes files; all ranks compute the same updates."""

    def __init__(self, compute: Compute, ranks: Ranks) -> None:
        self.compute = compute
        self._ranks = ranks
        self.device, self.size, self.rank = ranks.device, ranks.size, ranks.rank
        if self.size != compute.processes:
            raise RunFailure(
                f"the run asked for {compute.processes} processes but {self.size} came together; "
                "training would not be what the spec says",
                reason="world-size",
            )

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision for forward passes and losses, as the spec asks."""
        if self.compute.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def numerics(self, micro_batch: int | None = None) -> Numerics:
        """Precision and determinism as torch has them now; `micro_batch` is the most samples in one forward pass."""
        with self.autocast():
            autocast = torch.is_autocast_enabled(self.device.type)
            return read_numerics(self.device, autocast=autocast, processes=self.size, micro_batch=micro_batch)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks, in one collective a dtype."""
        if self.size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_dtype.setdefault(tensor.dtype, []).append(tensor)
        for group in by_dtype.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            dist.all_reduce(flat)
            for tensor, part in zip(group, torch.split(flat, [t.numel() for t in group]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def gather_rows(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, in rank order; ranks may hold different numbers of rows."""
        if self.size == 1:
            return rows
        counts: list[int] = self.gather_objects(len(rows))
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def gather_with_gradient(self, rows: Tensor) -> Tensor:
        """The rows of all ranks in rank order, differentiable; all ranks hold the same number of rows."""
        if self.size == 1:
            return rows
        gathered: tuple[Tensor, ...] = all_gather(rows)  # type: ignore[no-untyped-call]
        return torch.cat(gathered)

    def gather_objects(self, value: Any) -> list[Any]:
        """A small Python value from every rank, in rank order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value on all ranks."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def start_trackers(self, run: Tracked) -> None:
        """Open the run's trackers, on rank 0; one that cannot be opened is left out, with a warning."""
        self._ranks.start_trackers(run)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Values at a step, to the run's trackers."""
        self._ranks.log(values, step)

    def close(self) -> None:
        """End trackers and the process group; a new world may be opened in this process afterwards."""
        self._ranks.leave()


def choose_device(compute: Compute) -> str:
    """`cpu` or `cuda`; an error when a GPU was asked for and there is none, or too few for the processes.

    A job that was given GPUs asked for one too, whatever the spec says but `cpu`.

    Raises:
        UserError: The spec asks for GPUs that are not there.
        RunFailure: The job was given a GPU that torch does not find.
    """
    available = torch.cuda.device_count()
    if compute.device == "cuda" and available == 0:
        raise UserError("there is no GPU on this machine", field="compute.device", value="cuda", allowed="auto, cpu")
    requested = bool(os.environ.get(GPU_REQUESTED) or os.environ.get("SLURM_JOB_GPUS"))
    if compute.device == "auto" and available == 0 and requested:
        raise RunFailure(
            "the job of this run was given a GPU, but torch finds none: it would train on the CPU; with "
            "compute.device=cpu it may",
            reason="no-gpu",
        )
    if compute.device == "cpu" or available == 0:
        return "cpu"
    local = int(os.environ.get("LOCAL_WORLD_SIZE", compute.processes))
    if local > available:
        # NCCL refuses two ranks on one GPU, and a fall to the CPU would hold GPUs that nobody uses.
        raise UserError(
            f"{local} processes need {local} GPUs, there are {available}",
            field="compute.processes",
            value=local,
            allowed=f"1 to {available}, or compute.device: cpu",
        )
    return "cuda"


def open_world(
    compute: Compute,
    *,
    rendezvous: Path | None = None,
    trackers: Sequence[str] | None = None,
    folder: Path | None = None,
) -> World:
    """Join the run's processes and return this rank's world.

    With several processes, rank and size come from the environment (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`), and the
    ranks meet at the file `rendezvous`, or at `MASTER_ADDR` and `MASTER_PORT` when it is None.
    """
    kind = choose_device(compute)
    asked, found = compute.processes, int(os.environ.get("WORLD_SIZE", "1"))
    if asked != found:
        raise RunFailure(
            f"the run asks for {asked} processes, but WORLD_SIZE says {found}; start it through subnetbench",
            reason="world-size",
        )
    torch.set_num_threads(compute.threads)
    if kind == "cpu":
        keep_freed_memory()
    else:
        # cuBLAS is reproducible only with a fixed workspace.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(kind == "cuda", warn_only=True)
    torch.backends.cudnn.benchmark = False
    if asked > 1:
        _init_process_group(kind, rendezvous)
    world = World(compute, Ranks(cpu=kind == "cpu", alone=asked == 1, trackers=trackers, folder=folder))
    # After Accelerate, which may set them too. cuDNN would use TF32 unless it is told not to.
    torch.backends.cuda.matmul.allow_tf32 = compute.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = compute.precision == "tf32"
    return world


def _init_process_group(kind: str, rendezvous: Path | None) -> None:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group(
        backend="nccl" if kind == "cuda" else "gloo",
        init_method="env://" if rendezvous is None else f"file://{rendezvous}",
        rank=rank,
        world_size=size,
        timeout=COLLECTIVE_TIMEOUT,
    )
