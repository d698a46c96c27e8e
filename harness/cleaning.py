"""Removing files that nothing needs any more from a results folder. Records and logs always stay."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from subnetbench.harness.run_folder import RunFolder, find_runs


@dataclass(frozen=True)
class Removed:
    path: Path
    size: int


def clean_results(
    results: Path, *, checkpoints: bool = False, models: bool = False, dry_run: bool = False
) -> list[Removed]:
    """Remove left-over checkpoints of finished runs, temporary files of dead processes, and the feature cache.

    With `checkpoints` also what unfinished runs would resume from (a running run is left alone), with `models`
    also trained models. Returns what was, or with `dry_run` would be, removed.
    """
    paths = [*_temporary_files(results), *(p for p in [results / "cache"] if p.exists())]
    for folder in find_runs(results):
        paths += _needless(folder, checkpoints, models)
    removed = [Removed(path, _size(path)) for path in paths]
    if not dry_run:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    return removed


def _needless(folder: RunFolder, checkpoints: bool, models: bool) -> Iterator[Path]:
    state = folder.state()
    if state == "running":
        return
    if folder.last_checkpoint.exists() and (state == "finished" or checkpoints):
        yield folder.last_checkpoint
    if models and folder.model_file.exists():
        yield folder.model_file
    yield from folder.path.glob("rendezvous-*")


def _temporary_files(results: Path) -> Iterator[Path]:
    running = {folder.path for folder in find_runs(results) if folder.state() == "running"}
    for path in results.rglob("*.tmp-*"):
        if not any(path.is_relative_to(folder) for folder in running):
            yield path


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size
