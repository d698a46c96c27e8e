"""Where things are by default."""

import os
from pathlib import Path

# Nothing can be made below a device, and messages that name the folder say what to do.
_NO_HOME = Path("/dev/null/there is no home folder, so set SUBNETBENCH_DATA")


def default_data_root() -> Path:
    """`$SUBNETBENCH_DATA`, else `~/.cache/subnetbench/data`; a user without a home has a folder that cannot exist."""
    given = os.environ.get("SUBNETBENCH_DATA")
    return Path(given) if given else home(_NO_HOME, ".cache", "subnetbench", "data")


def home(otherwise: Path, *parts: str) -> Path:
    """A path below the home folder of the user, who in containers and system services may have none."""
    try:
        return Path.home().joinpath(*parts)
    except RuntimeError:
        return otherwise


def data_folder(given: Path | str | None) -> Path:
    """The folder of data sets: what was given, else `default_data_root()`."""
    return Path(given).expanduser().resolve() if given else default_data_root()
