"""Exporting a variant as a plain network: safetensors, torch.export, ONNX, each compared with the original."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subnetbench.harness.artifacts import Artifact
from subnetbench.harness.errors import UserError
from subnetbench.harness.method import Variant
from subnetbench.harness.paths import default_data_root
from subnetbench.harness.state_files import write_atomically
from subnetbench.harness.use import find_variant, locate, opened

FORMATS = ("safetensors", "torch_export", "onnx")
TOLERANCE = 1e-4
COMPARED_IMAGES = 4


@dataclass(frozen=True)
class Exported:
    """One exported file, or why there is none (`path` None)."""

    format: str
    path: Path | None
    detail: str


def export_variant(
    run: str,
    variant: str | None = None,
    *,
    formats: Sequence[str] = FORMATS,
    folder: Path | None = None,
    results: Path | None = None,
    data_root: Path | None = None,
) -> list[Exported]:
    """Write a variant of a finished run in each format and compare outputs on random images.

    A variant that the run does not list is made from the data it was trained on, below `data_root`.

    A format whose outputs differ by more than `TOLERANCE` of the largest output, or that cannot express the
    network, is reported and leaves no file.
    """
    model_file = locate(run, results)
    with opened(str(model_file), device="cpu") as artifact:
        chosen = find_variant(artifact, variant, data_root or default_data_root())
        target = folder or model_file.parent / "export"
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}", field=str(target)) from None
        return [_export(name, artifact, chosen, target / chosen.name.replace("/", "_")) for name in formats]


def _export(name: str, artifact: Artifact, variant: Variant, stem: Path) -> Exported:
    module = variant.build().cpu().eval()
    size = variant.preprocessing.size
    images = torch.randn(COMPARED_IMAGES, artifact.context.data.channels, size, size)
    with torch.no_grad():
        expected = module(images)
    writer = {"safetensors": _safetensors, "torch_export": _torch_export, "onnx": _onnx}[name]
    path = stem.with_name(f"{stem.name}{SUFFIX[name]}")
    try:
        outputs = writer(path, module, images, artifact, variant)
        difference = _difference(outputs, expected)
        if difference > TOLERANCE:
            path.unlink(missing_ok=True)
            return Exported(name, None, f"outputs differ by {difference:.2g} of the largest; nothing kept")
    except Exception as error:
        path.unlink(missing_ok=True)
        return Exported(name, None, f"not possible: {str(error).strip().splitlines()[0][:200]}")
    return Exported(name, path, f"outputs agree to {difference:.1e}")


SUFFIX = {"safetensors": ".safetensors", "torch_export": ".pt2", "onnx": ".onnx"}


def _safetensors(path: Path, module: nn.Module, images: Tensor, artifact: Artifact, variant: Variant) -> Tensor:
    from safetensors.torch import load, save

    state = {name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}
    metadata = {
        "run_id": artifact.spec.run_id,
        "variant": variant.name,
        "preprocessing": json.dumps(vars(variant.preprocessing)),
        "spec": artifact.spec.model_dump_json(),
    }
    write_atomically(path, save(state, metadata=metadata))
    fresh = variant.build().cpu().eval()
    for tensor in fresh.state_dict().values():
        tensor.zero_()
    fresh.load_state_dict(load(path.read_bytes()))
    with torch.no_grad():
        return fresh(images)


def _torch_export(path: Path, module: nn.Module, images: Tensor, artifact: Artifact, variant: Variant) -> Tensor:
    program = torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    torch.export.save(program, path)
    with torch.no_grad():
        return torch.export.load(path).module()(images)


def _onnx(path: Path, module: nn.Module, images: Tensor, artifact: Artifact, variant: Variant) -> Tensor:
    try:
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise UserError(f"install subnetbench[onnx] ({error.name} is missing)") from None
    del onnxscript
    torch.onnx.export(
        module,
        (images,),
        path,
        input_names=["images"],
        output_names=["outputs"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _difference(outputs: Tensor, expected: Tensor) -> float:
    return float((outputs - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
