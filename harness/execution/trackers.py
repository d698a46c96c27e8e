"""Experiment trackers, through Accelerate: TensorBoard by default, any that Accelerate knows by name."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec

from subnetbench.harness.core.errors import UserError, unknown
from subnetbench.harness.distributed.tracked import Plain, Tracked
from subnetbench.harness.execution.settings import RunSettings
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.spec import RunSpec

# Accelerate's names, each with the package that must be installed.
TRACKERS = {
    "aim": "aim",
    "clearml": "clearml",
    "comet_ml": "comet_ml",
    "dvclive": "dvclive",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "wandb": "wandb",
}


def check_trackers(names: Sequence[str] | None) -> tuple[str, ...]:
    """The trackers to use; None means TensorBoard, `none` means none.

    Raises `UserError` for a name that Accelerate does not know or whose package is not installed.
    """
    if names is None:
        return ("tensorboard",)
    if list(names) == ["none"]:
        return ()
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        if find_spec(TRACKERS[name]) is None:
            raise UserError(f"the package {TRACKERS[name]} is not installed", field="--tracker", value=name)
    return tuple(names)


def tracked(spec: RunSpec, settings: RunSettings, folder: RunFolder) -> Tracked:
    """A run as its trackers show it: by its id, with every field of its spec, in the project of its sweep."""
    config = dict(_flat("", spec.model_dump(mode="json")))
    return Tracked(settings.sweep or "runs", spec.run_id, config, folder.trackers)


def _flat(name: str, value: object) -> Iterator[tuple[str, Plain]]:
    """Fields of a spec with dots in their names; lists as text, what is not set is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, (str, int, float)):
        yield name, value
    elif value is not None:
        yield name, str(value)
