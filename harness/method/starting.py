"""Starting from weights of another program: the fields of a config, and what an import is."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from subnetbench.harness.core.config import NO_TRAINING, MethodConfig, OpenFields, read_file

STARTED_FROM = "weights"
"""The field that names a file to start from, which nothing reads once a run is trained."""


class WeightsConfig(MethodConfig):
    """A config whose network may start from a file of weights; with `epochs: 0` that file is what the run is.

    The fields are left out of what is written down while they are not used, so that ids of runs are those of versions
    that did not know them.
    """

    left_out_if_unset: ClassVar[tuple[str, ...]] = ("weights", "pixel_mean", "pixel_std")
    """Fields that are not written down while they are None; a subclass that adds to them repeats these."""

    weights: Annotated[
        str | None,
        Field(description="file of weights that another program wrote, to start from; with epochs: 0, to import"),
        read_file,
    ] = None
    pixel_mean: Annotated[
        tuple[float, ...] | None,
        Field(
            description="mean of pixels in [0, 1] that `weights` expect [default: published weights', else the data's]"
        ),
    ] = None
    pixel_std: Annotated[
        tuple[float, ...] | None, Field(description="standard deviation of pixels that `weights` expect")
    ] = None

    @property
    def imported(self) -> bool:
        """Whether the run is a file of weights that nothing here trains."""
        return self.weights is not None and self.epochs == 0

    def budget(self, epochs: int, images: int) -> str:
        if self.imported:
            return f"{NO_TRAINING}: imported"
        started = f", from {Path(self.weights).name}" if self.weights else ""
        return f"{super().budget(epochs, images)}{started}"

    @model_serializer(mode="wrap")
    def _without_unused(self, serialize: SerializerFunctionWrapHandler) -> OpenFields:
        plain: OpenFields = serialize(self)
        return {name: value for name, value in plain.items() if name not in self.left_out_if_unset or value is not None}
