"""Experiment trackers, through Accelerate: TensorBoard by default, any that Accelerate knows by name."""

from collections.abc import Sequence
from importlib.util import find_spec

from subnetbench.harness.core.errors import UserError, unknown

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
