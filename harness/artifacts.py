"""Trained runs on disk: writing the model file, and opening a run or a weights file for use without training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from subnetbench.harness.context import Context
from subnetbench.harness.data import Split, TaskData, TensorImages
from subnetbench.harness.errors import UserError, unknown
from subnetbench.harness.inputs import file_digest
from subnetbench.harness.method import Method, Variant
from subnetbench.harness.registry import get_method
from subnetbench.harness.run_folder import RunFolder, find_runs
from subnetbench.harness.specs import InputRef, RunSpec
from subnetbench.harness.state_files import load_state, save_state
from subnetbench.harness.training.checkpoints import load_modules, modules_state
from subnetbench.harness.world import World

MODEL_FORMAT = "subnetbench trained run 1"


@dataclass
class Artifact:
    """A trained run, opened: its method, its modules (in evaluation mode) and the context it was trained in.

    The context's data holds what networks are built from (classes, sizes, statistics) but no images.
    """

    path: Path
    method: Method[Any]
    modules: nn.ModuleDict
    context: Context

    @property
    def spec(self) -> RunSpec:
        return self.context.spec

    def variants(self) -> list[Variant]:
        return self.method.variants(self.modules, self.context)

    def variant(self, name: str | None = None) -> Variant:
        """The variant called `name`; None means the first one."""
        variants = self.variants()
        if name is None:
            return variants[0]
        for variant in variants:
            if variant.name == name:
                return variant
        raise unknown("variant", name, [variant.name for variant in variants])


def save_model(
    path: Path, method: Method[Any], modules: nn.ModuleDict, context: Context, facts: dict[str, Any]
) -> None:
    """Write a trained run's modules with all that is needed to build them again; `facts` are kept beside."""
    save_state(
        path,
        {
            "format": MODEL_FORMAT,
            "spec": context.spec.model_dump(mode="json"),
            "data": data_facts(context.data),
            "facts": facts,
            **modules_state(modules, method),
        },
    )


def load_model(path: Path, method: Method[Any], context: Context) -> tuple[nn.ModuleDict, dict[str, Any]]:
    """The modules of a run whose training is over, and the facts saved with them."""
    state = load_state(path)
    modules = method.rebuild(context).to(context.device)
    load_modules(modules, method, state, context.device)
    return modules, state["facts"]


def open_artifact(
    path: Path, world: World, inputs: dict[str, Any] | None = None, results: Path | None = None
) -> Artifact:
    """Open a model file. Raises `UserError` when it is of another kind or of an unknown method."""
    state = load_state(path)
    if not isinstance(state, dict) or state.get("format") != MODEL_FORMAT:
        raise UserError("this is not the weights file of a trained run", field=str(path))
    spec = RunSpec.parse(state["spec"], where=f"{path}: spec")
    method_class = get_method(spec.method)
    method = method_class(method_class.Config.parse(spec.config, where=f"{path}: config"))
    opened = inputs if inputs is not None else open_inputs(spec, results or path.parent.parent.parent, world)
    context = Context(spec=spec, data=data_from_facts(state["data"]), world=world, inputs=opened)
    modules = method.rebuild(context).to(world.device)
    load_modules(modules, method, state, world.device)
    modules.eval()
    return Artifact(path=path, method=method, modules=modules, context=context)


def open_inputs(spec: RunSpec, results: Path, world: World) -> dict[str, Artifact | list[Artifact]]:
    """The inputs of a run by role, opened."""
    return {
        role: [_open_input(item, results, world) for item in value]
        if isinstance(value, list)
        else _open_input(value, results, world)
        for role, value in spec.inputs.items()
    }


def _open_input(value: RunSpec | InputRef, results: Path, world: World) -> Artifact:
    if isinstance(value, RunSpec):
        path = RunFolder(results, value.run_id).model_file
        if not path.exists():
            raise UserError(f"the input run {value.run_id} is not trained yet; run it first", field="inputs")
        return open_artifact(path, world, results=results)
    if value.run is not None:
        return open_artifact(find_model(value.run, results), world, results=results)
    path = Path(str(value.file))
    if not path.is_file() or file_digest(path) != value.sha256:
        raise UserError("the input file is missing or has changed since the spec was made", field=str(path))
    return open_artifact(path, world, results=results)


def find_model(run: str, results: Path) -> Path:
    """The model file of a run: by path of a file or run folder, or by (the beginning of) its id in `results`."""
    path = Path(run).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.exists():
            raise UserError("this run is not trained yet", field="run", value=run)
        return path
    found = [folder for folder in find_runs(results) if folder.run_id.startswith(run)]
    if not found:
        raise unknown("run", run, [folder.run_id for folder in find_runs(results)])
    if len(found) > 1:
        raise UserError(f"{len(found)} runs begin with it", field="run", value=run, allowed=found[0].run_id)
    if not found[0].model_file.exists():
        raise UserError("this run is not trained yet", field="run", value=found[0].run_id)
    return found[0].model_file


def data_facts(data: TaskData) -> dict[str, Any]:
    """What networks are built from: everything of a `TaskData` but the images."""
    return {
        "dataset": data.dataset,
        "task": data.task,
        "classes": list(data.train.classes) or [str(i) for i in range(data.num_classes)],
        "channels": data.channels,
        "image_size": data.image_size,
        "mean": list(data.mean),
        "std": list(data.std),
        "protocol": data.protocol,
        "digest": data.digest,
        "options": data.options,
    }


def data_from_facts(facts: dict[str, Any]) -> TaskData:
    """A `TaskData` with the same facts and no images."""
    size = facts["image_size"] or 1
    images = TensorImages(torch.empty((0, facts["channels"], size, size), dtype=torch.uint8))
    split = Split(name="empty", images=images, labels=np.empty(0, np.int64), classes=tuple(facts["classes"]))
    return TaskData(
        dataset=facts["dataset"],
        task=facts["task"],
        train=split,
        validation=split,
        test=split,
        image_size=facts["image_size"],
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        protocol=facts["protocol"],
        digest=facts["digest"],
        options=facts["options"],
    )
