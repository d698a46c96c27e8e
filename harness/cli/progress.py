"""What a person sees while runs are carried out: a live table on a terminal, log lines elsewhere."""

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from subnetbench.harness.cli.output import printable
from subnetbench.harness.runs.folder import RunFolder
from subnetbench.harness.runs.state import Heartbeat

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from subnetbench.harness.execution.plan import Plan

_REFRESH_SECONDS = 0.5


class ProgressDisplay:
    """Follows a plan through the launcher's events and the runs' heartbeat files; `quiet` shows nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.results = Path()
        self.total = self.done = self.failed = 0
        self.running: dict[str, float] = {}
        self._last = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, value, trace)
            self._live = None

    def planned(self, plan: "Plan", results: Path) -> None:
        """Show the live table from now on."""
        self.results = results
        self.total, self.done, self.failed = len(plan.specs), len(plan.finished), len(plan.failed)
        if self.quiet:
            return
        if plan.finished or plan.failed:
            print(f"{self.done} finished before, {self.failed} failed before, {len(plan.todo)} to do")
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.live import Live

            # The live table moves the cursor, which texts that are printed may not.
            console = Console(file=sys.__stdout__)
            self._live = Live(self._table(), console=console, refresh_per_second=4, transient=True)
            self._live.__enter__()

    def event(self, run_id: str, event: str, detail: str) -> None:
        """A launcher's event: `started`, `resuming`, or the status with which a run ended."""
        seconds = ""
        if event == "started":
            self.running[run_id] = time.monotonic()
        elif event not in ("stopping", "resuming"):
            begun = self.running.pop(run_id, None)
            seconds = f" after {time.monotonic() - begun:.1f} s" if begun is not None else ""
            self.done += event == "finished"
            self.failed += event in ("failed", "blocked")
        first_line = detail.splitlines()[0] if detail else ""
        self._say(f"[{self.done}/{self.total}] {event}{seconds}: {run_id}" + (f" ({first_line})" if first_line else ""))

    def tick(self) -> None:
        now = time.monotonic()
        if self._live is not None and now - self._last > _REFRESH_SECONDS:
            self._last = now
            self._live.update(self._table())

    def _say(self, line: str) -> None:
        if self.quiet:
            return
        if self._live is not None:
            from rich.text import Text

            self._live.console.print(Text(printable(line)))
            self._live.update(self._table())
        else:
            print(time.strftime("%H:%M:%S"), line, flush=True)

    def _table(self) -> "Table":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, show_header=False)
        for run_id, begun in self.running.items():
            heartbeat = RunFolder(self.results, run_id).heartbeat() or Heartbeat()
            step, total = heartbeat.step, heartbeat.total_steps or 1
            where = f"{printable(heartbeat.stage) or 'starting'} {heartbeat.epoch or 0}/{heartbeat.epochs or '?'}"
            if heartbeat.phase == "evaluating":
                where, step = "evaluating", total
            seconds = f"{time.monotonic() - begun:.0f} s"
            table.add_row(Text(printable(run_id)), ProgressBar(total=total, completed=step, width=24), where, seconds)
        table.add_row(Text(f"{self.done}/{self.total} finished, {self.failed} failed", style="bold"))
        return table
