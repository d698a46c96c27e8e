"""The conformance suite: what every method and data set must do, built in or not.

Each check takes a name and a temporary folder and raises `Nonconformance` saying what is wrong. `subnetbench check
FILE` runs the checks on a plug-in; the project's own tests run them on everything that is registered. Runs take two
epochs of two steps on the embedded emoji.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from subnetbench.harness.artifacts import open_artifact
from subnetbench.harness.context import Context
from subnetbench.harness.data import Split, TaskData
from subnetbench.harness.errors import DataError, SubnetbenchError
from subnetbench.harness.execution import RunSettings, execute, load_data
from subnetbench.harness.method import TrainableMethod
from subnetbench.harness.records.read import read_records
from subnetbench.harness.registry import get_dataset, get_method, listing, load_plugin
from subnetbench.harness.run_folder import RunFolder
from subnetbench.harness.specs import RunSpec, resolve
from subnetbench.harness.tasks import PRIMARY_METRIC
from subnetbench.harness.training.monitor import Interrupted, Monitor
from subnetbench.harness.world import World, open_world

DATASET = "emoji"
SHORT = {"epochs": 2, "batch_size": 16, "limit_steps": 2}


class Nonconformance(SubnetbenchError):
    """What a method or data set does wrong."""


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check on one subject."""

    subject: str
    check: str
    ok: bool
    detail: str = ""


def check_plugin(file: Path, data_root: Path) -> list[CheckResult]:
    """Run all checks on what a file registers."""
    before = {("method", entry.name) for entry in listing("method")}
    before |= {("dataset", entry.name) for entry in listing("dataset")}
    load_plugin(file)
    results = []
    for kind, checks in (("method", METHOD_CHECKS), ("dataset", DATASET_CHECKS)):
        for entry in listing(kind):  # type: ignore[arg-type]
            if (kind, entry.name) not in before:
                results += [_outcome(kind, entry.name, name, check, data_root) for name, check in checks.items()]
    if not results:
        raise SubnetbenchError(f"{file} registers no method and no data set")
    return results


def _outcome(kind: str, name: str, check_name: str, check: "Check", data_root: Path) -> CheckResult:
    with tempfile.TemporaryDirectory() as folder:
        try:
            check(name, Path(folder) if kind == "method" else data_root)
        except Exception as error:
            message = str(error) if isinstance(error, SubnetbenchError) else f"{type(error).__name__}: {error}"
            return CheckResult(f"{kind} {name}", check_name, False, message)
    return CheckResult(f"{kind} {name}", check_name, True)


def short_spec(method: str, *, seed: int = 0, processes: int = 1) -> RunSpec:
    """A run of a method that takes seconds: its own `tiny` config on the embedded emoji."""
    cls = get_method(method)
    return resolve(
        method,
        DATASET,
        config={**SHORT, **cls.tiny},
        seed=seed,
        compute={"processes": processes, "device": "cpu"},
        inputs=cls.tiny_inputs,
    )


def check_is_described(name: str, folder: Path) -> None:
    """Summary, tasks, and a help text for every field of the config."""
    cls = get_method(name)
    summary = next((entry.summary for entry in listing("method") if entry.name == name), "")
    _require(bool(summary), "it has no docstring whose first line says what it is")
    _require(bool(cls.tasks), "it names no task")
    for field in cls.Config.describe():
        _require(bool(field["help"]), f"config field {field['name']} has no description")


def check_trains_and_evaluates(name: str, folder: Path) -> None:
    """A short run ends with a finished record that holds the task's primary metric."""
    spec = short_spec(name)
    for each in (*spec.dependencies(), spec):
        ending = execute(each, folder, RunSettings(trackers=()))
        failure = RunFolder(folder, each.run_id).failure() or {}
        _require(ending == "finished", f"the run {ending}: {failure.get('message')}")
    rows = read_records([folder]).long().to_pylist()
    values = [r["value"] for r in rows if r["metric"] == PRIMARY_METRIC[spec.task] and r["run_id"] == spec.run_id]
    _require(bool(values), f"the record has no {PRIMARY_METRIC[spec.task]}")
    _require(bool(np.isfinite(values).all()), f"{PRIMARY_METRIC[spec.task]} is not finite")


def check_resumes_bit_for_bit(name: str, folder: Path) -> None:
    """Stopped after every step and resumed each time, training ends with the same bits as without a stop."""
    cls = get_method(name)
    if not issubclass(cls, TrainableMethod):
        return
    spec = short_spec(name)
    _train_inputs(spec, folder)
    with train_here(spec, folder / "straight", inputs=folder) as whole:
        expected = _state(whole)
    place = folder / "stopped"
    for _ in range(200):
        try:
            with train_here(spec, place, inputs=folder, stop_after=2) as resumed:
                _compare(expected, _state(resumed))
                return
        except Interrupted:
            continue
    raise Nonconformance("it does not come to an end when it is interrupted and resumed")


def check_runs_on_two_ranks(name: str, folder: Path) -> None:
    """Two processes with gloo finish the run."""
    from subnetbench.harness.planning import plan_runs, run_locally

    spec = short_spec(name, processes=2)
    endings = run_locally(plan_runs([spec], folder), folder, {"trackers": ()}, slots=2)
    failure = RunFolder(folder, spec.run_id).failure() or {}
    _require(endings[spec.run_id] == "finished", f"the run {endings[spec.run_id]}: {failure.get('message')}")


def check_variants_are_plain_networks(name: str, folder: Path) -> None:
    """Variants are in evaluation mode, repeatable, and do not depend on what else is in a batch."""
    spec = short_spec(name)
    _train_inputs(spec, folder)
    with train_here(spec, folder / "run", inputs=folder) as (method, modules, context):
        variants = method.variants(modules, context)
        _require(bool(variants), "it offers no variant")
        _require(len({v.name for v in variants}) == len(variants), "two variants have the same name")
        split = context.data.test
        for variant in variants:
            module = variant.build()
            training = [n for n, m in module.named_modules() if m.training]
            _require(not training, f"variant {variant.name} is not in evaluation mode: {training[:3]}")
            with torch.no_grad():
                images = variant.preprocessing(split.images, np.arange(6), context.device)
                together = module(images)
                again = variant.build()(images)
                alone = torch.cat([module(images[:1]), module(images[1:6])])
            _require(torch.equal(together, again), f"variant {variant.name} differs when it is built again")
            _require(bool(torch.isfinite(together).all()), f"variant {variant.name} puts out infinities")
            close = torch.allclose(together, alone, atol=1e-4, rtol=1e-3)
            _require(close, f"outputs of variant {variant.name} depend on the batch")


def check_exports(name: str, folder: Path) -> None:
    """Every variant can be written as safetensors and gives the same outputs when it is read again."""
    from subnetbench.harness.export import export_variant

    spec = short_spec(name)
    for each in (*spec.dependencies(), spec):
        execute(each, folder, RunSettings(trackers=()))
    model = RunFolder(folder, spec.run_id).model_file
    world = open_world(spec.compute)
    try:
        names = [variant.name for variant in open_artifact(model, world).variants()]
    finally:
        world.close()
    for variant in names:
        (exported,) = export_variant(str(model), variant, formats=["safetensors"])
        _require(exported.path is not None, f"variant {variant}: {exported.detail}")


def check_follows_the_seed(name: str, folder: Path) -> None:
    """The same seed gives the same weights, another seed others (where there is anything to train)."""
    if not issubclass(get_method(name), TrainableMethod):
        return
    spec, other = short_spec(name), short_spec(name, seed=1)
    _train_inputs(spec, folder)
    _train_inputs(other, folder)
    with train_here(spec, folder / "a", inputs=folder) as trained:
        first = _state(trained)
    with train_here(spec, folder / "b", inputs=folder) as trained:
        _compare(first, _state(trained))
    with train_here(other, folder / "c", inputs=folder) as trained:
        second = _state(trained)
    _require(any(not torch.equal(first[key], second[key]) for key in first), "the seed changes nothing")


def check_data_loads(name: str, root: Path) -> None:
    """Splits are non-empty and disjoint, images uint8, labels in range; loading twice gives the same digest.

    Where the files are not there, the error says where to get them and where to put them.
    """
    cls = get_dataset(name)
    dataset = cls(cls.Config(), root)
    for task in cls.tasks:
        try:
            data = dataset.load(task)
        except DataError as error:
            _require(len(str(error)) > 20, f"the error for missing data says too little: {error}")
            return
        _check_data(data)
        _require(dataset.load(task).digest == data.digest, "loading twice gives different digests")


def check_data_is_described(name: str, root: Path) -> None:
    """Tasks, licence, citation and source are stated, and every config field has a help text."""
    cls = get_dataset(name)
    for attribute in ("tasks", "licence", "citation", "source"):
        _require(bool(getattr(cls, attribute, None)), f"it does not state its {attribute}")
    for field in cls.Config.describe():
        _require(bool(field["help"]), f"config field {field['name']} has no description")


def _check_data(data: TaskData) -> None:
    # A set that is for tests only has no other images.
    for split in (data.train, data.validation, data.test) if len(data.train) else (data.test,):
        _require(len(split) > 0, f"the {split.name} split is empty")
        image = split.images.read(np.array([0]))[0]
        _require(image.dtype == torch.uint8, f"images of {split.name} are {image.dtype}, not uint8")
        _require(split.labels.dtype == np.int64, f"labels of {split.name} are {split.labels.dtype}, not int64")
        _require(int(split.labels.min()) >= 0, f"{split.name} has negative labels")
        _require(torch.equal(image, split.images.read(np.array([0]))[0]), f"{split.name} reads differ")
    classes = np.unique(data.train.labels)
    _require(bool((classes == np.arange(len(classes))).all()), "training labels are not 0..K-1")
    if data.task == "classification":
        _require(int(data.test.labels.max()) < data.num_classes, "the test split has classes training has not")
    if data.task == "text_image":
        _require(data.test.captions is not None, "there are no captions")
    _require(len(data.mean) == len(data.std) == data.channels, "mean and std are not one number a channel")
    _require(_fingerprints(data.train).isdisjoint(_fingerprints(data.test)), "an image is in train and in test")


def _fingerprints(split: Split, most: int = 500) -> set[bytes]:
    chosen = np.arange(min(len(split), most))
    return {image.numpy().tobytes() for image in split.images.read(chosen) if image.float().std() > 0}


def _train_inputs(spec: RunSpec, folder: Path) -> None:
    for each in spec.dependencies():
        execute(each, folder, RunSettings(trackers=()))


Trained = tuple[TrainableMethod[Any], torch.nn.ModuleDict, Context]


@contextmanager
def train_here(spec: RunSpec, results: Path, *, inputs: Path, stop_after: int | None = None) -> Iterator[Trained]:
    """Train a spec in this process, outside of `execute`, so that its modules can be looked at."""
    from subnetbench.harness.artifacts import open_inputs

    folder = RunFolder(results, spec.run_id)
    folder.create(spec.model_dump_json())
    world: World = open_world(spec.compute)
    polls = iter(range(10**9))
    monitor = Monitor(world, folder, stop_requested=lambda: stop_after is not None and next(polls) >= stop_after - 1)
    cls = get_method(spec.method)
    method: Any = cls(cls.Config.parse(spec.config))
    try:
        context = Context(
            spec=spec,
            data=load_data(spec, RunSettings().data_root),
            world=world,
            folder=folder,
            inputs=open_inputs(spec, inputs, world),
            cache=results / "cache",
            monitor=monitor,
        )
        modules = method.train(context).eval()
        yield method, modules, context
    finally:
        world.close()


def _state(trained: Trained) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trained[1].state_dict().items()}


def _compare(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    _require(expected.keys() == found.keys(), "the modules have other tensors")
    different = [name for name in expected if not torch.equal(expected[name], found[name])]
    _require(not different, f"bits differ in {', '.join(different[:5])}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise Nonconformance(message)


Check = Callable[[str, Path], None]

METHOD_CHECKS: dict[str, Check] = {
    "is described": check_is_described,
    "trains and evaluates": check_trains_and_evaluates,
    "resumes bit for bit": check_resumes_bit_for_bit,
    "runs on two ranks": check_runs_on_two_ranks,
    "variants are plain networks": check_variants_are_plain_networks,
    "exports": check_exports,
    "follows the seed": check_follows_the_seed,
}
DATASET_CHECKS: dict[str, Check] = {
    "is described": check_data_is_described,
    "loads": check_data_loads,
}
