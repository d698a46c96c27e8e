"""Testing the statements of a claim file on records. Nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from subnetbench.harness.api.lookup import Paths, existing
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard.board import Board
from subnetbench.harness.leaderboard.claim_file import read_claims
from subnetbench.harness.leaderboard.claim_formats import frame_of, render, summary
from subnetbench.harness.leaderboard.claim_tests import Result, check_claims
from subnetbench.harness.records.read import read_records


@dataclass(frozen=True)
class ClaimsTested:
    """What became of the claims of a file: one `Result` each, in the order of the file."""

    results: tuple[Result, ...]
    confidence: float
    allow_undecided: bool = False

    @property
    def summary(self) -> str:
        """How many claims hold, and what became of the others."""
        return summary(self.results)

    @property
    def exit_status(self) -> int:
        """1 if a claim does not hold, else 0; one that could not be decided may be allowed."""
        allowed = {"holds", "undecided"} if self.allow_undecided else {"holds"}
        return int(any(result.status not in allowed for result in self.results))

    @property
    def frame(self) -> pd.DataFrame:
        """One line for each test of each claim, with its interval, power, and the ids of the runs that it stands on."""
        return frame_of(self.results)

    def text(self, format: str = "terminal", width: int = 120) -> str:
        """A table for people: `terminal` (at most `width` characters wide), `markdown`, `latex`; or `csv`, `json`."""
        return render(self.results, self.confidence, format, width)


def claims(
    file: Path | str, results: Paths | Sequence[Path | str] | None = None, *, allow_undecided: bool = False
) -> ClaimsTested:
    """Test each statement of a claim file on records: does it hold, is it contradicted, or do the seeds not decide?

    Args:
        file: YAML file of claims.
        results: Results folders or record files; None: those that the file names, relative to itself.
        allow_undecided: Claims that the seeds cannot decide leave `exit_status` as it is.

    Returns:
        The results with interval, power and runs; `exit_status` is 1 when one does not hold.

    Raises:
        UserError: The file cannot be used (the message names line and field), or a folder does not exist.

    Example:
        >>> from pathlib import Path
        >>> from subnetbench import claims
        >>> _ = Path("claims.yaml").write_text("claims: ['edge_popup > 0.01 on top1, emoji']")
        >>> [result.status for result in claims("claims.yaml", "results/quickstart").results]
        ['undecided']
    """
    read = read_claims(file)
    folders: Paths = results if results is not None else [read.path.parent / name for name in read.content.results]
    if not folders:
        raise UserError("name results folders, in the file or beside it", field="results", value=str(file))
    records = read_records(existing(folders))
    records.warn()
    found = check_claims(read, Board.from_records(records))
    return ClaimsTested(tuple(found), read.content.confidence, allow_undecided)
