"""Using trained runs without training: evaluation on any data set of their task, embeddings."""

import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd

from subnetbench.harness.api.evaluating import How, Otherwise
from subnetbench.harness.api.evaluating import record as record_rows
from subnetbench.harness.api.lookup import RunReference
from subnetbench.harness.core.config import UserValues
from subnetbench.harness.core.errors import ChangedError, UserError, unknown
from subnetbench.harness.core.files import write_atomically
from subnetbench.harness.core.paths import data_folder
from subnetbench.harness.data.described import Contents, describe
from subnetbench.harness.data.items import Items
from subnetbench.harness.data.registry import get_dataset
from subnetbench.harness.data.splits import TaskData
from subnetbench.harness.distributed.compute import Compute
from subnetbench.harness.distributed.world import World, open_world
from subnetbench.harness.evaluation.variant import Variant
from subnetbench.harness.execution.continuing import data_changes
from subnetbench.harness.execution.gathering import stores
from subnetbench.harness.leaderboard.matrix import Matrix, matrices_of_scores
from subnetbench.harness.method.base import Method
from subnetbench.harness.method.context import Context
from subnetbench.harness.records import Score
from subnetbench.harness.runs.spec import RunSpec
from subnetbench.harness.training.trained_run import TrainedRun, find_model, open_trained_run

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Scores of networks that were evaluated without training. `name` says of which run, on which split.

    `record` is the file with these scores as rows of the run; None: they were not recorded.
    """

    name: str
    scores: tuple[Score, ...]
    record: Path | None = None

    @property
    def frame(self) -> pd.DataFrame:
        """One line a score: variant, gallery_variant, split, metric, value."""
        rows = [(s.variant, s.gallery_variant, s.split, s.metric, s.value) for s in self.scores]
        return pd.DataFrame(rows, columns=["variant", "gallery_variant", "split", "metric", "value"])

    def matrices(self) -> list[Matrix]:
        """Query network x gallery network, where networks were tested against each other; else none."""
        return matrices_of_scores(self.scores, self.name)


@dataclass(frozen=True)
class Embedding:
    """A network's outputs for all images of a split.

    `outputs` (images, dimensions) are embeddings, or logits of a classifier; `labels` is (images,); outputs can be
    compared with others of the same `space`.
    """

    outputs: np.ndarray
    labels: np.ndarray
    space: str

    def write(self, path: Path | str) -> None:
        """Write a `.npz` without pickles, with the arrays `outputs`, `labels` and `space`."""
        content = io.BytesIO()
        np.savez(content, outputs=self.outputs, labels=self.labels, space=np.array(self.space))
        try:
            write_atomically(Path(path), content.getvalue())
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror}", field=str(path)) from None


def evaluate(
    run: RunReference,
    *,
    dataset: str | None = None,
    data: Mapping[str, Any] | None = None,  # open: fields of the data set's config
    split: str = "test",
    variants: Sequence[str] | None = None,
    record: bool = True,
    results: Path | str | None = None,
    data_root: Path | str | None = None,
    device: str = "auto",
    threads: int = 1,
    **otherwise: Unpack[Otherwise],
) -> Evaluation:
    """Score a finished run or a weights file on any data set of its task, without training.

    What a run in a results folder scores on other data, or otherwise than at its end, is recorded as rows of that run.

    Args:
        run: Run folder, weights file, or (the beginning of) a run id.
        dataset: Another data set; None: the one it was trained on.
        data: Fields of the data set's config.
        split: `train`, `validation` or `test`.
        variants: Networks to score, also capacities that were never trained; None: all that the run lists.
        record: Record the scores, if they are new and the weights lie in a results folder.
        results: Results folder in which run ids are looked up; None: all in `results/`.
        data_root: Folder of data sets; None: `$SUBNETBENCH_DATA`, or a folder in the user's cache.
        device: `auto`, `cpu` or `cuda`.
        threads: CPU threads.
        **otherwise: `image_size`, `scales`, `gallery`, `gallery_variant`, see `evaluating.Otherwise`.

    Raises:
        UserError: There is no such run or variant, or data or ways of evaluation do not fit it.
        ChangedError: No other data are named, and the split is not what it was when the run was trained.

    Example:
        >>> from subnetbench import evaluate
        >>> found = evaluate("edge_popup-emoji-s0", split="validation", results="results/quickstart")
        >>> found.frame.query("metric == 'top1'")["variant"].tolist()
        ['subnetwork']
    """
    began = datetime.now(UTC)
    with opened(os.fspath(run), results, device=device, threads=threads) as artifact:
        root, how = data_folder(data_root), _how(artifact, results, otherwise)
        loaded = load_for(artifact, dataset, dict(data or {}), root, split)
        chosen = [find_variant(artifact, name, root) for name in variants] if variants else artifact.variants()
        scores = how.measure(artifact, chosen, _context_on(artifact, loaded), split)
        asked = record and (dataset not in (None, artifact.spec.dataset) or bool(data) or bool(how.words))
        written = record_rows(artifact, loaded, scores, how, started=began) if asked else None
        return Evaluation(f"{run} · {split}", tuple(scores), written)


def _how(artifact: TrainedRun, results: Path | str | None, otherwise: Otherwise) -> How:
    """The way of an evaluation, with the run that embeds the gallery opened. Raises `UserError` where it does not fit."""
    gallery, other = otherwise.get("gallery"), None
    if gallery is not None:
        path = find_model(os.fspath(gallery), Path(results) if results else None)
        other = open_trained_run(path, artifact.context.world)
    scales = tuple(otherwise.get("scales", ()))
    how = How(otherwise.get("image_size"), scales, other, otherwise.get("gallery_variant"))
    how.check(artifact.spec.task)
    return how


def embed(
    run: RunReference,
    file: Path | str | None = None,
    *,
    dataset: str | None = None,
    data: Mapping[str, Any] | None = None,  # open: fields of the data set's config
    split: str = "test",
    variant: str | None = None,
    results: Path | str | None = None,
    data_root: Path | str | None = None,
    device: str = "auto",
) -> Embedding:
    """A variant's outputs (embeddings, or logits of a classifier) for all images of a split.

    Args:
        run: Run folder, weights file, or (the beginning of) a run id.
        file: Also write them to this `.npz`.
        dataset: Another data set; None: the one it was trained on.
        data: Fields of the data set's config.
        split: `train`, `validation` or `test`.
        variant: One network of the run; None: the first.
        results: Results folder in which run ids are looked up; None: all in `results/`.
        data_root: Folder of data sets; None: `$SUBNETBENCH_DATA`, or a folder in the user's cache.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        UserError: There is no such run or variant, or the data set does not fit the network.
        ChangedError: No other data are named, and the split is not what it was when the run was trained.

    Example:
        >>> from subnetbench import embed
        >>> found = embed("edge_popup-emoji-s0", results="results/quickstart")
        >>> found.outputs.shape[1], found.outputs.shape[0] == len(found.labels)
        (8, True)
    """
    with opened(os.fspath(run), results, device=device) as artifact:
        root = data_folder(data_root)
        other = load_for(artifact, dataset, dict(data or {}), root, split)
        chosen = find_variant(artifact, variant, root)
        part = other.split(split)
        module = chosen.build().to(artifact.context.device)
        outputs = _context_on(artifact, other).evaluator.outputs(module, chosen.preprocessing, part).cpu().numpy()
        found = Embedding(outputs, part.labels, str(chosen.space))
    if file is not None:
        found.write(file)
    return found


@contextmanager
def opened(
    run: str, results: Path | str | None = None, *, device: str = "auto", threads: int = 1
) -> Iterator[TrainedRun]:
    """A trained run by folder, file or id, opened in a world of one process."""
    path = find_model(run, Path(results) if results else None)
    world: World = open_world(Compute.parse({"device": device, "threads": threads}, where="compute"))
    try:
        yield open_trained_run(path, world)
    finally:
        world.close()


def find_variant(artifact: TrainedRun, name: str | None, data_root: Path) -> Variant:
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
        trained_on = load_for(artifact, None, {}, data_root, "train")
        made = artifact.method.variant_on_demand(name, artifact.modules, _context_on(artifact, trained_on))
        if made is not None:
            return made
    raise unknown(f"variant of {spec.method}", name, [variant.name for variant in listed])


def load_for(artifact: TrainedRun, dataset: str | None, options: UserValues, root: Path, split: str) -> TaskData:
    """The data set to evaluate on, for the artifact's task; `split` is the one that is used of it.

    Raises:
        ChangedError: No other data are named, and the split is not what it was when the run was trained.
        UserError: The data do not fit the run.
    """
    spec: RunSpec = artifact.spec
    name = dataset or spec.dataset
    cls = get_dataset(name)
    if spec.task not in cls.tasks:
        fault = f"data set {name!r} offers {', '.join(cls.tasks)}, the run is for {spec.task}"
        raise UserError(fault, field="--dataset")
    given = {**(spec.data if name == spec.dataset else {}), **options}
    loaded = cls(cls.Config.parse(given, where="data"), root).load(spec.task)
    loaded = _checked(artifact, loaded, root, split, other=dataset is not None or bool(options))
    trained_on = artifact.context.metadata
    if spec.task == "classification" and loaded.num_classes != trained_on.num_classes:
        raise UserError(
            f"{name!r} has {loaded.num_classes} classes, the classifier was trained on {trained_on.num_classes}",
            field="--dataset",
        )
    if loaded.channels != trained_on.channels:
        fault = f"{name!r} has {loaded.channels} channels, the network takes {trained_on.channels}"
        raise UserError(fault, field="--dataset")
    return loaded


def _checked(artifact: TrainedRun, loaded: TaskData, root: Path, split: str, *, other: bool) -> TaskData:
    """The data, once it is certain, or said, that a split of them is what it was; `other`: other data were asked for."""
    results = artifact.path.parent.parent.parent
    before = artifact.provenance.data
    declared = loaded.digest
    described = describe(loaded, stores(root, results))
    if before is None:
        then = artifact.context.metadata.digest
        differs = "" if other or then == declared else f" (its data digest is {then}, that of the data here {declared})"
        logger.warning("an earlier version trained this run: which images it saw is not known%s", differs)
    elif not other and (changed := data_changes(before, described.contents, results, only=split)):
        raise ChangedError(
            f"the data are not what they were when {artifact.spec.run_id} was trained: {changed}; "
            "name the data to evaluate on other data (--dataset, --data)"
        )
    if split != "train":
        _warn_of_training_images(artifact, described.contents, results, split)
    return described.data


def _warn_of_training_images(artifact: TrainedRun, contents: Contents, results: Path, split: str) -> None:
    """Say how many of the images to be scored were trained on, as far as the lists of image files tell."""
    trained = artifact.provenance.data.splits.get("train") if artifact.provenance.data else None
    listed = Items.read(results, trained.digest) if trained else None
    scored = contents.items.get(split)
    if listed is None or scored is None:
        return
    seen = set(listed.digests)
    both = sum(digest in seen for digest in scored.digests)
    if both:
        logger.warning(
            "%d of the %d images to be scored are images that the run was trained on", both, len(scored.names)
        )


def _context_on(artifact: TrainedRun, data: TaskData) -> Context:
    return Context(spec=artifact.spec, data=data, world=artifact.context.world)
