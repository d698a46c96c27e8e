"""How a finished run is evaluated otherwise than at its end, and its record: rows of the run, on other data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypedDict

from subnetbench.harness.api.lookup import RunReference
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.hashing import content_hash
from subnetbench.harness.core.protocols import IMAGES_OF, OTHER_GALLERY, SCALES
from subnetbench.harness.data.splits import TaskData
from subnetbench.harness.evaluation.protocols import evaluate_variants
from subnetbench.harness.evaluation.scales import MultiScale
from subnetbench.harness.evaluation.variant import Variant
from subnetbench.harness.execution.gathering import input_content
from subnetbench.harness.execution.recording import record_evaluation
from subnetbench.harness.method.context import Context
from subnetbench.harness.records import Score, read_records
from subnetbench.harness.records.hashes import evaluation_id
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.provenance import FilesRead, Provenance
from subnetbench.harness.training.trained_run import TrainedRun

_OF_TRAINING = ("budget", "tuned", "sweep", "study", "wall_seconds", "train_seconds", "gpu_hours", "world_size")
"""Columns of a run's own record that hold for its evaluations too."""


class Otherwise(TypedDict, total=False):
    """Ways of an evaluation other than that at the end of a run, each of which its protocol names."""

    image_size: int | None
    """Side of the images in pixels; None: what the networks were trained for."""
    scales: Sequence[float]
    """Factors on that side, the embeddings at which are averaged (retrieval); none: 1 alone."""
    gallery: RunReference | None
    """Another run, whose network embeds the gallery (retrieval): a student's queries among a teacher's images. That the
    two share a space is for the caller to know."""
    gallery_variant: str | None
    """Which network of it; None: its first."""


@dataclass(frozen=True)
class How:
    """What is done otherwise than at the end of a run: size of the images, scales, and whose gallery is searched."""

    image_size: int | None = None
    scales: tuple[float, ...] = ()
    gallery: TrainedRun | None = None
    gallery_variant: str | None = None

    @property
    def words(self) -> str:
        """What the protocol adds, so that no row mixes it with another way; empty: as at the end of the run."""
        size = "" if self.image_size is None else IMAGES_OF.format(size=self.image_size)
        scales = SCALES.format(scales=", ".join(f"{scale:g}" for scale in self.scales)) if self.scales else ""
        return size + scales + (OTHER_GALLERY if self.gallery else "")

    def check(self, task: str) -> None:
        """Raises `UserError` for what the task does not have, and for scales that are none."""
        for field, value in (("scales", self.scales), ("gallery", self.gallery)):
            if value and task != "retrieval":
                raise UserError(f"belongs to retrieval; the run is for {task}", field=field)
        if any(scale <= 0 for scale in self.scales):
            raise UserError("is no scale", field="scales", value=min(self.scales), allowed="> 0")

    def changed(self, variant: Variant) -> Variant:
        """A variant that sees images of the other size, at all scales."""
        view = variant.preprocessing
        if self.image_size is not None:
            view = view.resized_to(self.image_size)
        build = partial(_at_scales, variant, self.scales) if self.scales else variant.build
        return replace(variant, preprocessing=view, build=build)

    def measure(self, artifact: TrainedRun, variants: list[Variant], context: Context, split: str) -> list[Score]:
        """Scores of the variants on a split of the context's data.

        Raises:
            UserError: The gallery's network has another size of embeddings.
        """
        changed = [self.changed(variant) for variant in variants]
        if self.gallery is None:
            return artifact.method.measure(changed, context, split)
        found = self.gallery.variant(self.gallery_variant)
        searched = self.changed(replace(found, name=f"{self.gallery.spec.method}:{found.name}", origin=None))
        # Whoever names the pair vouches for their common space; sizes that differ cannot have one.
        queries = [replace(variant, space=searched.space) for variant in changed]
        pairs = [(query, searched) for query in queries]
        return evaluate_variants([*queries, searched], context.evaluator, split, pairs=lambda _: pairs)


def _at_scales(variant: Variant, scales: Sequence[float]) -> MultiScale:
    return MultiScale(variant.build(), scales).eval()


def record(
    artifact: TrainedRun, data: TaskData, scores: Sequence[Score], how: How, *, started: datetime
) -> Path | None:
    """Write the scores down as rows of the run; None where there is no results folder to write to.

    Args:
        artifact: The run.
        data: What it was evaluated on.
        scores: What was found.
        how: How.
        started: When the evaluation began.

    Raises:
        SubnetbenchError: The folder cannot be written.
    """
    folder = RunFolder(artifact.path.parent.parent.parent, artifact.spec.run_id)
    if folder.model_file != artifact.path:
        return None
    if how.words:
        # Records of the same data have the same protocol: images that are shown otherwise are other data.
        digest = content_hash([data.digest, how.words], len(data.digest))
        data = replace(data, protocol=data.protocol + how.words, digest=digest)
    digest = content_hash([data.digest, data.protocol], 8)
    known = folder.record_file()
    own = [] if known is None else read_records(known, _OF_TRAINING).runs.select(list(_OF_TRAINING)).to_pylist()
    return record_evaluation(
        artifact.spec,
        folder.results,
        run_id=evaluation_id(artifact.spec.run_id, data.dataset, digest),
        data=data,
        scores=scores,
        of_training=own[0] if own else {},
        ledger=artifact.ledger,
        provenance=_with_gallery(artifact.provenance, how),
        device=artifact.context.device,
        started=started,
        ended=datetime.now(UTC),
    )


def _with_gallery(provenance: Provenance, how: How) -> Provenance:
    """What the run stands on, and the run that embedded the gallery."""
    if how.gallery is None:
        return provenance
    files = provenance.files or FilesRead()
    inputs = {**files.inputs, "gallery": input_content(how.gallery)}
    return replace(provenance, files=replace(files, inputs=inputs))
