"""Using trained runs without training: evaluation on any data set of their task, embeddings."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from subnetbench.harness.artifacts import Artifact, find_model, open_artifact
from subnetbench.harness.context import Context
from subnetbench.harness.data import TaskData
from subnetbench.harness.errors import UserError, unknown
from subnetbench.harness.method import Method, Variant
from subnetbench.harness.records import Score
from subnetbench.harness.registry import get_dataset
from subnetbench.harness.run_folder import RunFolder
from subnetbench.harness.specs import Compute, RunSpec
from subnetbench.harness.state_files import write_atomically
from subnetbench.harness.world import World, open_world


def evaluate_run(
    run: str,
    *,
    dataset: str | None = None,
    data: dict[str, Any] | None = None,
    split: str = "test",
    results: Path | None = None,
    data_root: Path,
    variants: Sequence[str] | None = None,
    device: str = "auto",
    threads: int = 1,
) -> list[Score]:
    """Scores of the variants of a finished run, or of a weights file, on a split of a data set.

    Without `dataset` it is the one the run was trained on; without `variants` all that the run lists, by name also
    others that its method can make. Raises `UserError` when the data set does not offer the run's task, or has other
    classes than the classifier.
    """
    with opened(run, results, device=device, threads=threads) as artifact:
        other = load_for(artifact, dataset, data or {}, data_root)
        context = _context_on(artifact, other)
        chosen = [find_variant(artifact, name, data_root) for name in variants] if variants else artifact.variants()
        return artifact.method.measure(chosen, context, split)


def embed_run(
    run: str,
    file: Path,
    *,
    dataset: str | None = None,
    data: dict[str, Any] | None = None,
    split: str = "test",
    variant: str | None = None,
    results: Path | None = None,
    data_root: Path,
    device: str = "auto",
) -> tuple[int, ...]:
    """Write a variant's outputs for a split to a `.npz` without pickles; returns their shape."""
    import io

    with opened(run, results, device=device) as artifact:
        other = load_for(artifact, dataset, data or {}, data_root)
        chosen = find_variant(artifact, variant, data_root)
        part = other.split(split)
        module = chosen.build().to(artifact.context.device)
        rows = _context_on(artifact, other).outputs(module, chosen.preprocessing, part).cpu().numpy()
        content = io.BytesIO()
        np.savez(content, outputs=rows, labels=part.labels, space=np.array(chosen.space))
        write_atomically(file, content.getvalue())
        return rows.shape


@contextmanager
def opened(run: str, results: Path | None = None, *, device: str = "auto", threads: int = 1) -> Iterator[Artifact]:
    """A trained run by folder, file or id, opened in a world of one process."""
    path = locate(run, results)
    world: World = open_world(Compute.parse({"device": device, "threads": threads}, where="compute"))
    try:
        yield open_artifact(path, world)
    finally:
        world.close()


def find_variant(artifact: Artifact, name: str | None, data_root: Path) -> Variant:
    """A variant by name (None: the first), listed or made on demand from the data the run was trained on.

    Raises `UserError` when the method has none of this name.
    """
    listed = artifact.variants()
    for variant in listed:
        if name in (None, variant.name):
            return variant
    assert name is not None
    kind, spec = type(artifact.method), artifact.spec
    if kind.variant_on_demand is not Method.variant_on_demand:
        trained_on = load_for(artifact, None, {}, data_root)
        made = artifact.method.variant_on_demand(name, artifact.modules, _context_on(artifact, trained_on))
        if made is not None:
            return made
    raise unknown(f"variant of {spec.method}", name, [variant.name for variant in listed])


def locate(run: str, results: Path | None = None) -> Path:
    """The model file of a run; ids are looked up in `results`, or in all folders of `results/`."""
    if results is not None or Path(run).expanduser().exists():
        return find_model(run, results or Path())
    places = [path for path in sorted(Path("results").glob("*")) if (path / "runs").is_dir()]
    for place in places:
        if any(name.startswith(run) for name in os.listdir(place / "runs")):
            return find_model(run, place)
    raise UserError("no run of this name in any folder of results/; give --out", field="RUN", value=run)


def load_for(artifact: Artifact, dataset: str | None, options: dict[str, Any], root: Path) -> TaskData:
    """The data set to evaluate on, for the artifact's task."""
    spec: RunSpec = artifact.spec
    name = dataset or spec.dataset
    cls = get_dataset(name)
    if spec.task not in cls.tasks:
        fault = f"data set {name!r} offers {', '.join(cls.tasks)}, the run is for {spec.task}"
        raise UserError(fault, field="--dataset")
    given = {**(spec.data if name == spec.dataset else {}), **options}
    loaded = cls(cls.Config.parse(given, where="data"), root).load(spec.task)
    trained_on = artifact.context.data
    if spec.task == "classification" and loaded.num_classes != trained_on.num_classes:
        raise UserError(
            f"{name!r} has {loaded.num_classes} classes, the classifier was trained on {trained_on.num_classes}",
            field="--dataset",
        )
    if loaded.channels != trained_on.channels:
        fault = f"{name!r} has {loaded.channels} channels, the network takes {trained_on.channels}"
        raise UserError(fault, field="--dataset")
    return loaded


def _context_on(artifact: Artifact, data: TaskData) -> Context:
    folder: RunFolder | None = None
    return Context(spec=artifact.spec, data=data, world=artifact.context.world, folder=folder)
