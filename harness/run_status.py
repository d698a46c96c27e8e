"""The state of many runs as rows, from their files alone."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from subnetbench.harness.launchers.slurm.ledger import DRIVER
from subnetbench.harness.run_folder import RunFolder, find_runs


def collect(results: Sequence[Path]) -> list[dict[str, Any]]:
    """One row a run: `run`, `results`, `state`, `stage`, `epoch`, `rate` (steps a second), `seconds`, `detail`."""
    return [_row(folder) for place in results for folder in folders_of(place)]


def folders_of(results: Path) -> list[RunFolder]:
    """The runs of a results folder, after the job that drives its tuning, where there is one."""
    driver = RunFolder(results, DRIVER)
    return [*([driver] if driver.path.is_dir() else []), *find_runs(results)]


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """The number of runs in each state, in words; the driver of a tuning is none."""
    counts = Counter(row["state"] for row in rows if row["run"] != DRIVER)
    return f"{counts.total()} runs" + "".join(f", {count} {state}" for state, count in sorted(counts.items()))


def _row(folder: RunFolder) -> dict[str, Any]:
    facts = folder.progress() or {}
    state = folder.state()
    failure = (folder.failure() or {}) if state == "failed" else {}
    seconds = facts.get("seconds", 0.0)
    done = facts.get("step", 0)
    detail = f"{failure['reason']}: {str(failure.get('message', '')).splitlines()[0]}" if failure.get("reason") else ""
    if state == "stale":
        detail = "no sign of life; the same command goes on with it"
    return {
        "run": folder.run_id,
        "results": str(folder.results),
        "state": state,
        "stage": facts.get("stage", ""),
        "epoch": f"{facts['epoch']}/{facts['epochs']}" if "epoch" in facts else "",
        "rate": f"{done / seconds:.1f}/s" if seconds and done else "",
        "seconds": f"{seconds:.0f}" if seconds else "",
        "detail": detail,
    }
