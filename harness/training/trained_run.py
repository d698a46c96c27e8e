"""Trained runs on disk: writing the model file, and opening a run or a weights file for use without training."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from subnetbench.harness.core.errors import UserError, unknown
from subnetbench.harness.core.files import read_json
from subnetbench.harness.core.hashing import SHORT_DIGITS, file_digest
from subnetbench.harness.data.metadata import DataMetadata
from subnetbench.harness.distributed.world import World
from subnetbench.harness.evaluation.variant import Origin, Variant
from subnetbench.harness.method.base import Method
from subnetbench.harness.method.context import Context, Inputs
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.method.resolve import network_of
from subnetbench.harness.method.starting import STARTED_FROM
from subnetbench.harness.runs.contents import content_digests
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.lookup import find_run
from subnetbench.harness.runs.provenance import Provenance
from subnetbench.harness.runs.spec import InputRef, RunSpec
from subnetbench.harness.runs.spent import Ledger, Spent
from subnetbench.harness.runs.state_file import load_state, save_state
from subnetbench.harness.training.accounts import with_inputs
from subnetbench.harness.training.state import ModelState, StateFile

MODEL_FORMAT = "subnetbench trained run 1"


@dataclass(repr=False)
class TrainedRun:
    """A trained run, opened: its method, its modules (in evaluation mode) and the context it was trained in.

    The context has what networks are built from (classes, sizes, statistics) but no images. `provenance` is what the
    training stood on.
    """

    path: Path
    method: Method[Any]
    modules: nn.ModuleDict
    context: Context
    ledger: Ledger
    provenance: Provenance = field(default_factory=Provenance)
    is_input: bool = False
    """Whether another run starts from it, whose variants must say which networks are not its own."""

    @property
    def spec(self) -> RunSpec:
        return self.context.spec

    @property
    def network(self) -> str:
        return network_of(self.spec)

    def __repr__(self) -> str:
        return f"<trained run {self.spec.run_id}: {', '.join(self.modules)}, in {self.path}>"

    def variants(self) -> list[Variant]:
        """The networks it offers; as an input, each with its `origin`."""
        own = self.method.variants(self.modules, self.context)
        if not self.is_input:
            return own
        here = Origin(self.spec.run_id, self.spec.method)
        return [variant if variant.origin else replace(variant, origin=here) for variant in own]

    def variant(self, name: str | None = None) -> Variant:
        """The variant called `name`; None means the first one."""
        variants = self.variants()
        if name is None:
            return variants[0]
        for variant in variants:
            if variant.name == name:
                return variant
        raise unknown("variant", name, [variant.name for variant in variants])


@dataclass(frozen=True)
class TrainingTimes:
    """Seconds that training took, over all attempts: inside the training loop, and of the whole run."""

    train_seconds: float
    wall_seconds: float


def save_model(
    path: Path,
    method: Method[Any],
    modules: nn.ModuleDict,
    context: Context,
    times: TrainingTimes,
    ledger: Ledger,
    provenance: Provenance,
) -> None:
    """Write a trained run's modules with all that is needed to build them again."""
    save_state(
        path,
        {
            "format": MODEL_FORMAT,
            "spec": context.spec.model_dump(mode="json"),
            "data": context.metadata.to_json(),
            "times": asdict(times),
            "spent": ledger.to_json(),
            "provenance": provenance.to_json(),
            **ModelState.of(modules, method).to_state(),
        },
    )


def load_model(path: Path, method: Method[Any], context: Context) -> tuple[nn.ModuleDict, TrainingTimes, Ledger]:
    """The modules of a run whose training is over, how long it took, and what else was spent."""
    state = load_state(path)
    modules = method.rebuild(context).to(context.device)
    ModelState.from_state(state).restore(modules, method, context.device)
    # Version 0.1 called them facts.
    times = TrainingTimes(**(state["times"] if "times" in state else state["facts"]))
    return modules, times, _ledger(state, context)


def _ledger(state: StateFile, context: Context) -> Ledger:
    """What a model file says of spending; a file of a version that did not count leaves it unknown."""
    if "spent" in state:
        return Ledger.from_json(state["spent"])
    spec = context.spec
    return with_inputs(Spent(spec.run_id, spec.method, network_of(spec)), context)


def open_trained_run(path: Path, world: World, inputs: Inputs | None = None, results: Path | None = None) -> TrainedRun:
    """Open a model file.

    Raises:
        UserError: It is of another kind, of an unknown method or of another run than its folder, or a file that its
            network is built from has changed.
    """
    state = load_state(path)
    if not isinstance(state, dict) or state.get("format") != MODEL_FORMAT:
        raise UserError("this is not the weights file of a trained run", field=str(path))
    spec = RunSpec.parse(state["spec"], where=f"{path}: spec")
    _check_folder(path, spec)
    method_class = get_method(spec.method)
    method = method_class(method_class.Config.parse(spec.config, where=f"{path}: config"))
    provenance = Provenance.from_json(state.get("provenance"))
    _check_files(path, spec, method, provenance)
    opened = inputs if inputs is not None else open_inputs(spec, results or path.parent.parent.parent, world)
    context = Context(spec=spec, data=DataMetadata.from_json(state["data"]), world=world, inputs=opened)
    modules = method.rebuild(context).to(world.device)
    ModelState.from_state(state).restore(modules, method, world.device)
    modules.eval()
    ledger = _ledger(state, context)
    return TrainedRun(path, method, modules, context, ledger, provenance)


def _check_folder(path: Path, spec: RunSpec) -> None:
    """A model file that was copied over another run's would pass its scores off as those of that run."""
    beside = read_json(path.with_name("spec.json"))
    if beside is None:
        return
    of_folder = RunSpec.parse(beside, where=f"{path.with_name('spec.json')}: spec")
    if of_folder.run_id != spec.run_id:
        raise UserError(
            f"these are the weights of {spec.run_id}, but the folder is that of {of_folder.run_id}", field=str(path)
        )


def _check_files(path: Path, spec: RunSpec, method: Method[Any], provenance: Provenance) -> None:
    """Frozen networks are not in the model file: they are read from where they were, and must be what they were."""
    then = {**spec.files, **(provenance.files.installed if provenance.files else {})}
    where = {**method.config.files_read(), **method.config.installed_files()}
    # What a training starts from is in the model file, or gone from it.
    now = content_digests({name: file for name, file in where.items() if name in then and name != STARTED_FROM})
    for name, digest in now.items():
        if not digest.startswith(then[name]):
            raise UserError(
                f"{where[name]} is not what the run of {path} was trained with: its digest was "
                f"{then[name][:SHORT_DIGITS]}, and is {digest[:SHORT_DIGITS]}",
                field=name,
            )


def open_inputs(spec: RunSpec, results: Path, world: World) -> dict[str, TrainedRun | list[TrainedRun]]:
    """The inputs of a run by role, opened."""
    return {
        role: [_open_input(item, results, world) for item in value]
        if isinstance(value, list)
        else _open_input(value, results, world)
        for role, value in spec.inputs.items()
    }


def _open_input(value: RunSpec | InputRef, results: Path, world: World) -> TrainedRun:
    return replace(_opened(value, results, world), is_input=True)


def _opened(value: RunSpec | InputRef, results: Path, world: World) -> TrainedRun:
    if isinstance(value, RunSpec):
        path = RunFolder(results, value.run_id).model_file
        if not path.exists():
            raise UserError(f"the input run {value.run_id} is not trained yet; run it first", field="inputs")
        return open_trained_run(path, world, results=results)
    if value.run is not None:
        return open_trained_run(find_model(value.run, results), world, results=results)
    path = Path(str(value.file))
    if not path.is_file() or file_digest(path) != value.sha256:
        raise UserError("the input file is missing or has changed since the spec was made", field=str(path))
    return open_trained_run(path, world, results=results)


def find_model(run: str, results: Path | None = None) -> Path:
    """The model file of a run: by path of a file or run folder, or by (the beginning of) its id.

    Ids are looked up in `results`, or in all folders of `results/`. Raises `UserError` when there is no such run, or
    it is not trained yet.
    """
    path = Path(run).expanduser()
    if path.is_file():
        return path
    model = path / "model.safetensors" if path.is_dir() else find_run(run, results).model_file
    if not model.exists():
        raise UserError("this run is not trained yet", field="RUN", value=model.resolve().parent.name)
    return model
