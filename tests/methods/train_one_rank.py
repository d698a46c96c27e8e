"""Trains one rank of several runs, one after the other, and saves what each ends with.

`python train_one_rank.py FOLDER PORT ...` with RANK set; FOLDER holds the specs as 0.json, 1.json, ..., and the ranks
meet at a port of its own for each: a rank that is ahead would otherwise meet the group that is being left.
"""

import os
import sys
from pathlib import Path

from subnetbench.harness.runs.spec import spec_from_json
from subnetbench.harness.runs.state_file import save_state
from subnetbench.harness.testing.short_runs import train_here


def train(folder: Path, ports: list[str], rank: str) -> None:
    for file, port in zip(sorted(folder.glob("*.json")), ports, strict=True):
        os.environ.update(RANK=rank, LOCAL_RANK=rank, MASTER_PORT=port)
        spec = spec_from_json(file.read_text())
        with train_here(spec, folder / f"rank{rank}", inputs=folder) as (method, modules, _):
            save_state(
                folder / f"{file.stem}-{rank}.safetensors", {"modules": modules.state_dict(), "state": method.state}
            )


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2:], os.environ["RANK"])
