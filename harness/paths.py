"""Where things are by default."""

import os
from pathlib import Path


def default_data_root() -> Path:
    """`$SUBNETBENCH_DATA`, else `~/.cache/subnetbench/data`."""
    return Path(os.environ.get("SUBNETBENCH_DATA") or Path.home() / ".cache" / "subnetbench" / "data")
