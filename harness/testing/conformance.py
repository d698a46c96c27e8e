"""The conformance suite: what every method and data set must do, built in or not.

Each check of a method takes its `Trials`, the short runs that all checks share, and one of a data set its name and the
folder of data; it raises `Nonconformance` saying what is wrong. `subnetbench check FILE` runs the checks on a plug-in; the
project's own tests run them on everything that is registered. Runs take two epochs of two steps on the embedded emoji.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from subnetbench.harness.api.exporting import export
from subnetbench.harness.core.errors import DataError, SubnetbenchError
from subnetbench.harness.core.paths import data_folder
from subnetbench.harness.core.registry import Registry, load_plugin
from subnetbench.harness.core.tasks import PRIMARY_METRIC
from subnetbench.harness.data.registry import DATASETS, get_dataset
from subnetbench.harness.data.splits import Split, TaskData
from subnetbench.harness.distributed.world import open_world
from subnetbench.harness.evaluation.items import SplitItems
from subnetbench.harness.method.base import TrainableMethod
from subnetbench.harness.method.registry import METHODS
from subnetbench.harness.records.item_checks import item_findings
from subnetbench.harness.records.items import Items
from subnetbench.harness.records.items_file import items_path, read_items
from subnetbench.harness.records.read import RecordSet
from subnetbench.harness.records.record import is_trivial
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.testing.nonconformance import Nonconformance, require
from subnetbench.harness.testing.sparsity import check_keeps_its_sparsity
from subnetbench.harness.testing.spending import check_records_what_it_spends
from subnetbench.harness.testing.trials import Ended, Trials
from subnetbench.harness.training.trained_run import open_trained_run


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check on one subject."""

    subject: str
    check: str
    ok: bool
    detail: str = ""


def check(file: Path | str, *, data_root: Path | str | None = None) -> list[CheckResult]:
    """Run all checks on the methods and data sets that a file registers.

    Args:
        file: A Python file, as for `--plugin`.
        data_root: Folder of data sets; None: `$SUBNETBENCH_DATA`, else the cache folder of the user.

    Raises:
        UserError: There is no such file, or it cannot be imported.
        SubnetbenchError: It registers nothing.

    Example:
        >>> from subnetbench import check
        >>> failed = [each for each in check("my_method.py") if not each.ok]
    """
    root = data_folder(data_root)
    registries: list[Registry[Any]] = [METHODS, DATASETS]
    before = [{entry.name for entry in registry.listing()} for registry in registries]
    load_plugin(file)
    methods, datasets = (
        [entry.name for entry in registry.listing() if entry.name not in known]
        for registry, known in zip(registries, before, strict=True)
    )
    results = [result for name in methods for result in _check_method(name)]
    for name in datasets:
        for label, one in DATASET_CHECKS.items():
            results.append(_outcome(f"{DATASETS.kind} {name}", label, partial(one, name, root)))
    if not results:
        raise SubnetbenchError(f"{file} registers no method and no data set")
    return results


def _check_method(name: str) -> list[CheckResult]:
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(name, Path(folder))
        subject = f"{METHODS.kind} {name}"
        return [_outcome(subject, label, partial(one, trials)) for label, one in METHOD_CHECKS.items()]


def _outcome(subject: str, label: str, check: Callable[[], None]) -> CheckResult:
    try:
        check()
    except Exception as error:
        message = str(error) if isinstance(error, SubnetbenchError) else f"{type(error).__name__}: {error}"
        return CheckResult(subject, label, False, message)
    return CheckResult(subject, label, True)


def check_is_described(trials: Trials) -> None:
    """Summary, tasks, and a help text for every field of the config."""
    cls = trials.cls
    summary = next((entry.summary for entry in METHODS.listing() if entry.name == trials.name), "")
    require(bool(summary), "it has no docstring whose first line says what it is")
    require(bool(cls.tasks), "it names no task")
    for field in cls.Config.describe():
        require(bool(field.help), f"config field {field.name} has no description")


def check_trains_and_evaluates(trials: Trials) -> None:
    """A short run ends with a finished record that holds the task's primary metric on the test and validation splits."""
    spec, records = trials.spec, trials.records
    require(not records.faults, f"the record is not valid: {'; '.join(map(str, records.faults))}")
    primary = PRIMARY_METRIC[spec.task]
    rows = [r for r in records.long().to_pylist() if r["metric"] == primary and r["run_id"] == spec.run_id]
    rows = [row for row in rows if not is_trivial(row["variant"])]
    scored = {split: {row["variant"] for row in rows if row["split"] == split} for split in ("test", "validation")}
    for split, variants in scored.items():
        require(
            bool(variants), f"the record has no {primary} on the split {split}: `evaluate` scores the split it is given"
        )
    require(scored["test"] == scored["validation"], f"other variants are scored on validation than on test: {scored}")
    require(bool(np.isfinite([row["value"] for row in rows]).all()), f"{primary} is not finite")
    _check_items(records, spec.run_id, primary)


def _check_items(records: RecordSet, run_id: str, metric: str) -> None:
    """Scores by item are there for all networks that were scored on a split, and their means are the scores."""
    found = item_findings(records)
    require(not found.absent, "the file of scores by item is missing")
    require(not found.faults, f"scores by item do not fit the record: {'; '.join(map(str, found.faults))}")
    row = next(line for line in records.runs.to_pylist() if line["run_id"] == run_id)
    path = items_path(row["file"], row["record_id"])
    items = read_items(path, row["items_digest"]) if path is not None and row["items_digest"] else Items({})
    scored = [
        (line["metric"], line["split"], line["variant"], line["gallery_variant"])
        for line in records.long().to_pylist()
        if line["run_id"] == run_id and line["metric"] == metric and not is_trivial(line["variant"])
    ]
    lacking = [key for key in scored if key not in items.values]
    require(not lacking, f"{metric} has no scores by item: {lacking[:3]}")


def check_resumes_bit_for_bit(trials: Trials) -> None:
    """Stopped after every step and resumed each time, training ends with the same bits as without a stop.

    So `optimizers` and `plan_epoch` leave the method alone, whatever calls them how often.
    """
    if trials.trains:
        _compare(trials.straight.weights, trials.stopped.weights)
        _check_hooks_only_return(trials.straight)


def check_runs_on_two_ranks(trials: Trials) -> None:
    """Two processes with gloo finish the run."""
    statuses = {row["run_id"]: row["status"] for row in trials.two_ranks.runs.to_pylist()}
    require(statuses.get(trials.two_ranks_spec.run_id) == "finished", "two ranks leave no record of a finished run")


def check_variants_are_plain_networks(trials: Trials) -> None:
    """Variants are in evaluation mode, repeatable, and do not depend on what else is in a batch."""
    method, modules, context = trials.straight.method, trials.straight.modules, trials.straight.context
    variants = method.variants(modules, context)
    require(bool(variants), "it offers no variant")
    require(len({v.name for v in variants}) == len(variants), "two variants have the same name")
    split = context.data.test
    for variant in variants:
        require(not variant.frozen or variant.origin is not None, f"variant {variant.name} is frozen without origin")
        module = variant.build()
        training = [n for n, m in module.named_modules() if m.training]
        require(not training, f"variant {variant.name} is not in evaluation mode: {training[:3]}")
        with torch.no_grad():
            images = variant.preprocessing(split.images, np.arange(6), context.device)
            together = module(images)
            again = variant.build()(images)
            alone = torch.cat([module(images[:1]), module(images[1:6])])
        require(torch.equal(together, again), f"variant {variant.name} differs when it is built again")
        require(bool(torch.isfinite(together).all()), f"variant {variant.name} puts out infinities")
        close = torch.allclose(together, alone, atol=1e-4, rtol=1e-3)
        require(close, f"outputs of variant {variant.name} depend on the batch")


def check_exports(trials: Trials) -> None:
    """Every variant can be written as safetensors and gives the same outputs when it is read again."""
    model = RunFolder(trials.recorded, trials.spec.run_id).model_file
    world = open_world(trials.spec.compute)
    try:
        names = [variant.name for variant in open_trained_run(model, world).variants()]
    finally:
        world.close()
    for variant in names:
        (exported,) = export(model, variant, formats=["safetensors"])
        require(exported.path is not None, f"variant {variant}: {exported.detail}")


def check_follows_the_seed(trials: Trials) -> None:
    """The same seed gives the same weights, another seed others (where there is anything to train)."""
    if not trials.trains:
        return
    _compare(trials.recorded_weights, trials.straight.weights)
    first, second = trials.straight.weights, trials.other_seed.weights
    require(any(not torch.equal(first[key], second[key]) for key in first), "the seed changes nothing")


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
            require(len(str(error)) > 20, f"the error for missing data says too little: {error}")
            return
        _check_data(data)
        _check_clusters(data)
        require(dataset.load(task).digest == data.digest, "loading twice gives different digests")


def check_data_is_described(name: str, root: Path) -> None:
    """Tasks, licence, citation and source are stated, and every config field has a help text."""
    cls = get_dataset(name)
    for attribute in ("tasks", "licence", "citation", "source"):
        require(bool(getattr(cls, attribute, None)), f"it does not state its {attribute}")
    for field in cls.Config.describe():
        require(bool(field.help), f"config field {field.name} has no description")


def _check_data(data: TaskData) -> None:
    # A set that is for tests only has no other images.
    for split in (data.train, data.validation, data.test) if len(data.train) else (data.test,):
        require(len(split) > 0, f"the {split.name} split is empty")
        image = split.images.read(np.array([0]))[0]
        require(image.dtype == torch.uint8, f"images of {split.name} are {image.dtype}, not uint8")
        require(split.labels.dtype == np.int64, f"labels of {split.name} are {split.labels.dtype}, not int64")
        require(int(split.labels.min()) >= 0, f"{split.name} has negative labels")
        require(torch.equal(image, split.images.read(np.array([0]))[0]), f"{split.name} reads differ")
    classes = np.unique(data.train.labels)
    require(bool((classes == np.arange(len(classes))).all()), "training labels are not 0..K-1")
    if data.task == "classification":
        require(int(data.test.labels.max()) < data.num_classes, "the test split has classes training has not")
    if data.task == "text_image":
        require(data.test.captions is not None, "there are no captions")
    require(len(data.mean) == len(data.std) == data.channels, "mean and std are not one number a channel")
    require(_fingerprints(data.train).isdisjoint(_fingerprints(data.test)), "an image is in train and in test")


def _check_clusters(data: TaskData) -> None:
    try:
        SplitItems(data.test, data.task)
    except (ValueError, IndexError) as error:
        raise Nonconformance(f"test items cannot be told apart for intervals over items: {error}") from error


def _fingerprints(split: Split, most: int = 500) -> set[bytes]:
    chosen = np.arange(min(len(split), most))
    return {image.numpy().tobytes() for image in split.images.read(chosen) if image.float().std() > 0}


def _check_hooks_only_return(trained: Ended) -> None:
    method, modules, context = trained.method, trained.modules, trained.context
    if not isinstance(method, TrainableMethod):
        return
    trained_stages = [stage for stage in method.stages(context) if stage.epochs]
    for stage in trained_stages[-1:]:
        attributes, state = dict(vars(method)), dict(method.state)
        method.optimizers(modules, stage, context)
        list(method.plan_epoch(modules, stage, stage.epochs - 1, context))
        for before, after in ((attributes, vars(method)), (state, method.state)):
            changed = [key for key in {**before, **after} if before.get(key) is not after.get(key)]
            require(not changed, f"optimizers or plan_epoch set {', '.join(changed)}: that belongs in enter_stage")


def _compare(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    require(expected.keys() == found.keys(), "the modules have other tensors")
    different = [name for name in expected if not torch.equal(expected[name], found[name])]
    require(not different, f"bits differ in {', '.join(different[:5])}")


METHOD_CHECKS: dict[str, Callable[[Trials], None]] = {
    "is described": check_is_described,
    "trains and evaluates": check_trains_and_evaluates,
    "resumes bit for bit": check_resumes_bit_for_bit,
    "runs on two ranks": check_runs_on_two_ranks,
    "records what it spends": check_records_what_it_spends,
    "variants are plain networks": check_variants_are_plain_networks,
    "exports": check_exports,
    "follows the seed": check_follows_the_seed,
    "keeps its sparsity": check_keeps_its_sparsity,
}
DATASET_CHECKS: dict[str, Callable[[str, Path], None]] = {
    "is described": check_data_is_described,
    "loads": check_data_loads,
}
