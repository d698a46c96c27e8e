"""Starting from weights of another program: the fields of a config, and what an import is."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from subnetbench.harness.core.config import NO_TRAINING, MethodConfig, OpenFields, read_file

_OPTIONAL = ("weights", "pixel_mean", "pixel_std")


class WeightsConfig(MethodConfig):
    """A config whose network may start from a file of weights; with `epochs: 0` that file is what the run is.

    The fields are left out of what is written down while they are not used, so that ids of runs are those of versions
    that did not know them.
    """

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
        return {name: value for name, value in plain.items() if name not in _OPTIONAL or value is not None}
