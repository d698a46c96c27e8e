"""Where and how a run computes."""

from typing import Annotated, Literal

from pydantic import Field

from subnetbench.harness.core.config import Config

GPU_REQUESTED = "SUBNETBENCH_GPU_REQUESTED"
"""Environment variable by which a job tells its runs that it was given GPUs: none of them may fall back to the CPU."""


class Compute(Config):
    """Processes, threads, device and precision of a run. Part of its identity, because its bits depend on them."""

    processes: Annotated[int, Field(ge=1, description="ranks of one run (gloo on CPUs, NCCL on GPUs)")] = 1
    threads: Annotated[int, Field(ge=1, description="CPU threads of each process")] = 1
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto: a GPU when there is one")] = "auto"
    precision: Annotated[
        Literal["fp32", "tf32", "bf16"],
        Field(
            description="fp32: no TF32 anywhere; tf32: products and convolutions of GPUs in TF32; bf16: autocast, "
            "parameters and optimizers stay float32"
        ),
    ] = "fp32"
