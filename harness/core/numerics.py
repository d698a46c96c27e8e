"""How numbers were computed: precision and determinism as they were while a run computed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self


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
