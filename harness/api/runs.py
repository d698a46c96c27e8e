"""A run as an object: its status, scores and curves, and the networks that it trained."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow.compute as pc

from subnetbench.harness.api.lookup import RunReference, own_record_files
from subnetbench.harness.api.submitting import Submission
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard.leaderboard import Leaderboard
from subnetbench.harness.leaderboard.matrix import Matrix, matrices_of_board
from subnetbench.harness.records.read import read_records
from subnetbench.harness.report.history import read_history
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.lookup import find_run
from subnetbench.harness.runs.spec import RunSpec, spec_from_json

if TYPE_CHECKING:
    from subnetbench.harness.training.trained_run import TrainedRun

SCORE_COLUMNS = ["split", "variant", "gallery_variant", "metric", "value"]
_ALL_POINTS = 1_000_000


@dataclass(frozen=True)
class Run:
    """One run below a results folder.

    `status` is what was known when this object was made: `finished`, `failed`, `interrupted`, `pruned`, `blocked` (a
    run that it starts from failed), `elsewhere` (another process works on it), `waiting`, `running` or `stale`; of a
    dry run `to do`; of a run that was handed to SLURM `submitted`, `queued`, `not submitted` or `left out`. `message`
    says why a run failed, `inputs` are the runs that were carried out first because it starts from them, and
    `submission` says what was handed to SLURM.
    """

    spec: RunSpec
    results: Path
    status: str
    message: str = ""
    inputs: tuple["Run", ...] = ()
    submission: Submission | None = None

    def __repr__(self) -> str:
        return f"<run {self.id}: {self.status}, in {self.results}>"

    def __fspath__(self) -> str:
        """The run's folder, so that functions that take a run by path take this too."""
        return str(self.path)

    @property
    def id(self) -> str:
        """A readable name that ends in the hash of the whole spec."""
        return self.spec.run_id

    @property
    def path(self) -> Path:
        """The run's folder: spec, log, trained weights, failure."""
        return self.folder.path

    @property
    def folder(self) -> RunFolder:
        """The files in the run's folder, by what they are."""
        return RunFolder(self.results, self.id)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """The scores of its latest finished record: split, variant, gallery_variant, metric, value.

        Empty while the run is not finished. What is known of a network rather than measured on a split has the
        split `""`. In retrieval `variant` embeds the queries, `gallery_variant` the gallery.
        """
        own = own_record_files(self.folder)
        if not own and not (self.results / "records").is_dir():
            return pd.DataFrame(columns=SCORE_COLUMNS)
        records = read_records(own or self.results, ("run_id", "attempt", "status", "finished_at"))
        if own:
            records.warn()
        rows = records.runs.select(["run_id", "attempt", "status", "finished_at"]).to_pandas().astype({"run_id": str})
        rows = rows[(rows["run_id"] == self.id) & (rows["status"] == "finished")]
        if rows.empty:
            return pd.DataFrame(columns=SCORE_COLUMNS)
        latest = rows.sort_values(["finished_at", "attempt"]).index[-1]
        own_scores = records.scores.filter(pc.equal(records.scores["run"], int(latest)))
        scores: pd.DataFrame = own_scores.select(SCORE_COLUMNS).to_pandas()
        return scores[scores["metric"] != ""].astype(dict.fromkeys(SCORE_COLUMNS[:-1], str)).reset_index(drop=True)

    def history(self) -> pd.DataFrame:
        """The curves of training: a line an epoch (the index, from 1), a column a curve, such as `train/loss`.

        Read from the TensorBoard files of the run; empty where it keeps none.
        """
        curves = read_history(self.path, points=_ALL_POINTS)
        frame = pd.DataFrame({tag: pd.Series(values, index=epochs) for tag, (epochs, values) in curves.items()})
        return frame.rename_axis(index="epoch")

    def matrices(self) -> list[Matrix]:
        """Query network x gallery network, where the run tested networks against each other; else none."""
        files = own_record_files(self.folder)
        return matrices_of_board(Leaderboard(files)) if files else []

    def load(self, device: str = "auto") -> "TrainedRun":
        """The trained networks, in evaluation mode, with the method and the context they belong to.

        `variants()` lists the networks that were evaluated, `variant(name).build()` is one of them as a plain
        module, `modules` has the trained modules by name.

        Args:
            device: `auto`, `cpu` or `cuda`.

        Raises:
            UserError: The run is not trained yet, or its weights were removed.
        """
        from subnetbench.harness.api.trained import opened  # late: scores and curves need no torch

        model = self.folder.model_file
        if not model.exists():
            raise UserError("this run has no trained weights", field="run", value=self.id)
        with opened(str(model), device=device) as trained:
            return trained


def load_run(run: RunReference, *, results: Path | str | None = None) -> Run:
    """Open a run by the path of its folder, or by its id or the beginning of it.

    Args:
        run: Run folder, run id, or the beginning of one.
        results: Results folder in which ids are looked up; None: all in `results/`.

    Raises:
        UserError: There is no such run, or several ids begin so.

    Example:
        >>> from subnetbench import load_run
        >>> found = load_run("edge_popup-emoji-s0", results="results/quickstart")
        >>> found.status, found.spec.config["sparsity"]
        ('finished', 0.5)
        >>> top1 = found.scores.query("metric == 'top1' and split == 'test'").set_index("variant")["value"]
        >>> bool(top1["subnetwork"] > top1["trivial:chance"])
        True
        >>> list(found.history().index)
        [1]
        >>> [variant.name for variant in found.load().variants()]
        ['subnetwork']
    """
    folder = find_run(os.fspath(run), Path(results) if results else None)
    return run_in(folder)


def run_in(folder: RunFolder) -> Run:
    """The run of a folder, with the state that its files tell."""
    spec = spec_from_json(folder.spec_file.read_bytes())
    failure = folder.failure()
    return Run(spec, folder.results, folder.state(), failure.message if failure else "")
