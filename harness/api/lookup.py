"""From what a user writes to folders, files and runs."""

import os
from collections.abc import Iterable
from pathlib import Path

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.records.record import RECORDS_FOLDER
from subnetbench.harness.runs.folder import RunFolder, find_runs
from subnetbench.harness.runs.lookup import RESULTS_ROOT, find_matching, results_folders, run_folder_at

Paths = Path | str | Iterable[Path | str]
"""One path or several."""
RunReference = str | os.PathLike[str]
"""A run: its folder, (the beginning of) its id, or the `Run` itself, which stands for its folder."""


def existing(paths: Paths) -> list[Path]:
    """Results folders or record files as a list; raises `UserError` for one that does not exist."""
    found = [Path(path) for path in ([paths] if isinstance(paths, Path | str) else paths)]
    for path in found:
        if not path.exists():
            raise UserError("there is no such folder", field="FOLDER", value=str(path))
    return found


def recorded_folders() -> list[Path]:
    """All results folders in `results/` that hold records; raises `UserError` for none."""
    found = [path for path in sorted(RESULTS_ROOT.glob("*")) if (path / RECORDS_FOLDER).is_dir()]
    if not found:
        raise UserError("no folder in it holds records", field="FOLDER", value=str(RESULTS_ROOT))
    return found


def record_files_of(run: str) -> list[Path]:
    """The record files (or folders) that a results folder, run folder, record file or beginning of a run id means.

    Raises `UserError` where there is no such run, or where it has no record file of its own.
    """
    by_path = run_folder_at(Path(run))
    if by_path is not None:
        return _own_files(by_path)
    path = Path(run).expanduser()
    if path.exists():
        return [path]
    known = [folder for results in results_folders() for folder in find_runs(results)]
    return [file for folder in find_matching(run, known) for file in _own_files(folder)]


def own_record_files(run: RunFolder) -> list[Path]:
    """The record files of one run that were not merged with others."""
    return sorted((run.results / "records").glob(f"{run.run_id}-*.parquet"))


def _own_files(run: RunFolder) -> list[Path]:
    files = own_record_files(run)
    if not files:
        raise UserError(
            "this run has no record file of its own: it is not finished, or its records were merged; "
            "give the results folder and --where",
            field="RUNS",
            value=run.run_id,
        )
    return files
