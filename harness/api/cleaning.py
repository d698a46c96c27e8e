"""Removing files that nothing needs any more from a results folder. Records and logs always stay."""

import contextlib
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.records.items_file import ITEMS_FOLDER
from subnetbench.harness.records.read import read_records
from subnetbench.harness.runs.folder import RunFolder, find_runs

_RECORDED_WITHIN_SECONDS = 3600.0
"""A run writes its record at once after its outcomes by item; no file takes longer to be written."""


@dataclass(frozen=True)
class Removed:
    """A file or folder that was (or would be) removed, and its size in bytes."""

    path: Path
    size: int


def clean(
    folder: Path | str, *, checkpoints: bool = False, models: bool = False, items: bool = False, dry_run: bool = False
) -> list[Removed]:
    """Remove left-over checkpoints of finished runs, temporary files of dead processes, the feature cache, and outcomes
    by item that belong to no record.

    Runs that a process works on are left alone, with the feature cache that they share; links are not followed.

    Args:
        folder: Results folder.
        checkpoints: Also remove what unfinished runs would resume from; a running run is left alone.
        models: Also remove trained models.
        items: Also remove the outcomes by item of all records; intervals are over seeds alone then, which is said.
        dry_run: Remove nothing.

    Returns:
        What was, or with `dry_run` would be, removed.

    Raises:
        UserError: There is no such folder.

    Example:
        >>> from subnetbench.harness import api
        >>> api.clean("results/quickstart", models=True, dry_run=True)[-1].path.name
        'model.safetensors'
    """
    results = Path(folder)
    if not results.is_dir():
        raise UserError("there is no such folder", field="FOLDER", value=str(folder))
    live = {run.path for run in find_runs(results) if run.is_live()}
    paths = list(_temporary_files(results, live))
    if not live and (results / "cache").is_dir():
        paths.append(results / "cache")
    for run in find_runs(results):
        if run.path not in live:
            paths += _needless(run, checkpoints, models)
    paths = [path for path in [*paths, *_needless_items(results, items)] if _is_own(path, results)]
    removed = [Removed(path, _size(path)) for path in paths]
    if not dry_run:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    return removed


def _needless(folder: RunFolder, checkpoints: bool, models: bool) -> Iterator[Path]:
    if folder.last_checkpoint.exists() and (folder.state() == "finished" or checkpoints):
        yield folder.last_checkpoint
    if models and folder.model_file.exists():
        yield folder.model_file
    yield from folder.path.glob("rendezvous-*")


def _needless_items(results: Path, every: bool) -> list[Path]:
    """Files of outcomes by item of no record, which killed runs leave; nothing that a run may be about to record."""
    files = sorted((results / ITEMS_FOLDER).glob("*.parquet"))
    if every or not files:
        return files
    records = read_records(results, ["record_id"])
    if records.skipped or records.invalid:  # they may belong to what cannot be read
        return []
    known = set(records.runs["record_id"].to_pylist())
    old = time.time() - _RECORDED_WITHIN_SECONDS
    return [path for path in files if path.stem not in known and path.stat().st_mtime < old]


def _temporary_files(results: Path, live: Collection[Path]) -> Iterator[Path]:
    """Those that no living process is writing: runs write some outside their folders, such as their record."""
    old = time.time() - _RECORDED_WITHIN_SECONDS
    for path in results.rglob("*.tmp-*"):
        with contextlib.suppress(FileNotFoundError):  # it got its name just now
            if not any(path.is_relative_to(folder) for folder in live) and path.lstat().st_mtime < old:
                yield path


def _is_own(path: Path, results: Path) -> bool:
    """Whether what a path names lies in the results folder, and not behind a link that leads elsewhere."""
    return not path.is_symlink() and path.resolve().is_relative_to(results.resolve())


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size
