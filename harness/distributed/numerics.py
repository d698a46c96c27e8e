"""How numbers were computed, read back from torch once everything is set up: what was asked for may not be what is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Numerics:
    """Settings that scores may depend on, as they were while the run computed.

    `device` is the type (`cpu`, `cuda`), `autocast` the type of mixed precision (empty: none), `matmul` torch's
    precision of float32 matrix products (`highest`: none of TF32), `convolution_tf32` whether cuDNN may use TF32,
    `deterministic` and `benchmark` torch's settings of these names. `micro_batch` is the most samples in one forward
    pass (None: whole batches), `processes` the number of ranks.
    """

    device: str
    autocast: str
    matmul: str
    convolution_tf32: bool
    deterministic: bool
    benchmark: bool
    processes: int
    micro_batch: int | None

    @property
    def precision(self) -> str:
        """In short: `bf16`, `tf32` where any product may be rounded so, else `fp32`."""
        if self.autocast:
            return {"bfloat16": "bf16", "float16": "fp16"}.get(self.autocast, self.autocast)
        rounded = self.matmul != "highest" or self.convolution_tf32
        return "tf32" if rounded else "fp32"

    def __str__(self) -> str:
        words = [self.device, self.precision]
        if self.precision == "tf32" and not self.convolution_tf32:
            words.append("(products only)")
        if self.precision == "tf32" and self.matmul == "highest":
            words.append("(convolutions only)")
        words += ["deterministic"] if self.deterministic else []
        words += ["cudnn benchmark"] if self.benchmark else []
        words += [f"{self.processes} processes"] if self.processes > 1 else []
        words += [f"micro-batches of {self.micro_batch}"] if self.micro_batch else []
        return ", ".join(words).replace(", (", " (")

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_json` gave. Raises `KeyError` for anything else."""
        return cls(**{each.name: plain[each.name] for each in fields(cls)})


def read_numerics(device: "torch.device", *, autocast: bool, processes: int, micro_batch: int | None) -> Numerics:
    """The settings of this process as torch has them now; call it inside the run's own mixed precision.

    Args:
        device: Where the run computes.
        autocast: Whether the run enters mixed precision; its type is then read from torch.
        processes: Ranks that came together.
        micro_batch: Most samples in one forward pass.
    """
    import torch

    with_type = torch.get_autocast_dtype(device.type) if autocast else None
    cuda = device.type == "cuda"
    return Numerics(
        device=device.type,
        autocast="" if with_type is None else str(with_type).removeprefix("torch."),
        matmul=torch.get_float32_matmul_precision(),
        convolution_tf32=cuda and bool(torch.backends.cudnn.allow_tf32),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        benchmark=cuda and bool(torch.backends.cudnn.benchmark),
        processes=processes,
        micro_batch=micro_batch,
    )
