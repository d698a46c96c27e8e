"""Exporting a variant as a plain network: safetensors, torch.export, ONNX, each compared with the original."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subnetbench.harness.api.lookup import RunReference
from subnetbench.harness.api.trained import find_variant, opened
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.files import write_atomically
from subnetbench.harness.core.paths import data_folder
from subnetbench.harness.evaluation.variant import Variant
from subnetbench.harness.training.trained_run import TrainedRun, find_model

FORMATS = ("safetensors", "torch_export", "onnx")
TOLERANCE = 1e-4
COMPARED_IMAGES = 4


@dataclass(frozen=True)
class Exported:
    """One exported file, or why there is none (`path` None)."""

    format: str
    path: Path | None
    detail: str


def export(
    run: RunReference,
    variant: str | None = None,
    *,
    formats: Sequence[str] = FORMATS,
    to: Path | str | None = None,
    results: Path | str | None = None,
    data_root: Path | str | None = None,
) -> list[Exported]:
    """Write a variant of a finished run as a plain network, and compare outputs on random images after export.

    Args:
        run: Run folder, weights file, or (the beginning of) a run id.
        variant: One network of the run, also such that it does not list but its method can make; None: the first.
        formats: Any of `safetensors`, `torch_export`, `onnx`.
        to: Folder to write to; None: `export` in the run's folder.
        results: Results folder in which run ids are looked up; None: all in `results/`.
        data_root: Folder of data sets; None: `$SUBNETBENCH_DATA`, or a folder in the user's cache.

    Returns:
        One entry a format. Where outputs differ by more than `TOLERANCE` of the largest output, or the format cannot
        express the network, there is no file.

    Raises:
        UserError: There is no such run, variant or format, or the folder cannot be written.

    Example:
        >>> from subnetbench import export
        >>> (file,) = export("edge_popup-emoji-s0", formats=["safetensors"], to="exported", results="results/quickstart")
        >>> file.path.name, file.detail
        ('subnetwork.safetensors', 'outputs agree to 0.0e+00')
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError("no such format", field="--format", value=name, allowed=", ".join(FORMATS))
    model_file = find_model(os.fspath(run), Path(results) if results else None)
    with opened(str(model_file), device="cpu") as artifact:
        chosen = find_variant(artifact, variant, data_folder(data_root))
        target = Path(to) if to else model_file.parent / "export"
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}", field=str(target)) from None
        return [_export(name, artifact, chosen, target / chosen.name.replace("/", "_")) for name in formats]


def _export(name: str, artifact: TrainedRun, variant: Variant, stem: Path) -> Exported:
    module = variant.build().cpu().eval()
    size = variant.preprocessing.size
    images = torch.randn(COMPARED_IMAGES, artifact.context.metadata.channels, size, size)
    expected = _outputs(module, images)
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


def _safetensors(path: Path, module: nn.Module, images: Tensor, artifact: TrainedRun, variant: Variant) -> Tensor:
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
    return _outputs(fresh, images)


def _torch_export(path: Path, module: nn.Module, images: Tensor, artifact: TrainedRun, variant: Variant) -> Tensor:
    program = torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    torch.export.save(program, path)
    return _outputs(torch.export.load(path).module(), images)


def _onnx(path: Path, module: nn.Module, images: Tensor, artifact: TrainedRun, variant: Variant) -> Tensor:
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


def _outputs(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = module(images)
    return outputs
