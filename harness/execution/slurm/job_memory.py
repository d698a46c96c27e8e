"""What a job remembers between its turns: how its runs failed, and how far they had got. Kept in its folder."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from subnetbench.harness.core.files import read_json, write_json
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.state import Failure, Heartbeat

_log = logging.getLogger(__name__)

MOST_STANDSTILLS = 4
MOST_FAILURES = 5
# Trying again cannot help: these follow from the run itself.
FINAL_REASONS = (
    *("nan", "foreign-checkpoint", "world-size", "pruned", "standstill"),
    *("data-changed", "files-changed", "code-changed", "numerics-changed"),
)


class FailureHistory:
    """The failures of one run in the turns of a job, each without the numbers in which equal failures differ."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self._file = folder / f"failures-{run_id}.json"

    def kinds(self) -> list[str]:
        """The failures so far, `<reason>: <message>`."""
        return list((read_json(self._file) or {}).get("failures", []))

    def may_try_again(self, failure: Failure | None) -> bool:
        """Note a failure, and say whether another try may help: not if it is final, known, or one of many."""
        failure = failure or Failure()
        # Values, addresses and times differ between two failures that are the same.
        kind = f"{failure.reason}: {re.sub(r'0x[0-9a-f]+|[0-9]+', '#', failure.message)[:500]}"
        before = self.kinds()
        try:
            write_json(self._file, {"failures": [*before, kind]})
        except OSError as error:
            _log.error("not queued again: %s", error)
            return False
        return failure.reason not in FINAL_REASONS and kind not in before and len(before) + 1 < MOST_FAILURES

    def is_final(self) -> bool:
        """Whether the run failed for good in an earlier turn."""
        kinds = self.kinds()
        final = kinds and (kinds[-1] in kinds[:-1] or kinds[-1].split(":")[0] in FINAL_REASONS)
        return bool(final) or len(kinds) >= MOST_FAILURES


def standstills(file: Path, runs: Sequence[RunFolder]) -> int:
    """How many turns in a row have brought the runs of a job no further, this one included; noted in `file`.

    Raises `OSError` when that cannot be noted.
    """
    where = [_position(run) for run in runs]
    before: Mapping[str, object] = read_json(file) or {}
    seen = before.get("times", 0)
    times = seen + 1 if before.get("where") == where and isinstance(seen, int) else 0
    write_json(file, {"where": where, "times": times})
    return times


def _position(run: RunFolder) -> list[object]:
    return [run.finished_file.exists(), *(run.heartbeat() or Heartbeat()).position]
