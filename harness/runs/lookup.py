"""Finding the runs that a user means: by the path of a folder, or by (the beginning of) an id."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from subnetbench.harness.core.errors import UserError, unknown
from subnetbench.harness.runs.folder import RunFolder, find_runs

RESULTS_ROOT = Path("results")
"""Where results folders are looked for when none is given."""
_SHOWN = 5
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
TRIALS = "trials"
"""A tuning keeps its trials in this folder, apart from its final runs."""


def results_folders(given: Sequence[Path] = (), *, trials: bool = False) -> list[Path]:
    """The given results folders, or all in `results/` that hold runs; with `trials`, those of tunings' trials too.

    Raises `UserError` when one that is given does not exist.
    """
    folders = list(given) or [path for path in sorted(RESULTS_ROOT.glob("*")) if (path / "runs").is_dir()]
    for folder in folders:
        if not folder.is_dir():
            raise UserError("there is no such folder", field="FOLDER", value=str(folder))
    inner = [path for folder in folders if trials and ((path := folder / TRIALS) / "runs").is_dir()]
    return [*folders, *(path for path in inner if path not in folders)]


def matching_ids(run: str, known: Collection[str], *, kind: str = "run") -> list[str]:
    """The id `run` if there is one, else all ids that begin with it, in order. Raises `UserError` for none."""
    found = [run] if run in known else sorted({run_id for run_id in known if run_id.startswith(run)})
    if not found:
        raise unknown(kind, run, set(known))
    return found


def single_id(run: str, known: Collection[str], *, kind: str = "run") -> str:
    """The one id that `run` names. Raises `UserError` when none or several begin with it."""
    found = matching_ids(run, known, kind=kind)
    if len(found) > 1:
        shown = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        raise UserError(f"{len(found)} runs begin with it", field="RUN", value=run, allowed=shown)
    return found[0]


def run_folder_at(path: Path) -> RunFolder | None:
    """The run whose folder a path is, or None when it is no folder of a run."""
    whole = path.expanduser().resolve()
    folder = RunFolder(whole.parent.parent, whole.name)
    return folder if (whole / "spec.json").exists() and whole.parent.name == "runs" else None


def folder_beside(record_file: Path, run_id: str) -> RunFolder | None:
    """The folder of a run beside its record, if it is there. A record may hold any text as its id: no paths."""
    if not _RUN_ID.fullmatch(run_id):
        return None
    folder = RunFolder(record_file.parent.parent, run_id)
    return folder if folder.path.is_dir() else None


def find_matching(run: str, folders: Sequence[RunFolder]) -> list[RunFolder]:
    """Of some runs those that a user means by an id or its beginning. Raises `UserError` when there is none."""
    chosen = matching_ids(run, [folder.run_id for folder in folders])
    return [folder for folder in folders if folder.run_id in chosen]


def find_run(run: str, results: Path | None = None) -> RunFolder:
    """The one run that a path or (the beginning of) an id names.

    Ids are looked up in `results`, or in all folders of `results/`; of the same run in several folders it is the
    first. Raises `UserError` when there is none, or when several begin with it.
    """
    by_path = run_folder_at(Path(run))
    if by_path is not None:
        return by_path
    known = [folder for path in results_folders([results] if results else ()) for folder in find_runs(path)]
    run_id = single_id(run, [folder.run_id for folder in known])
    return next(folder for folder in known if folder.run_id == run_id)
