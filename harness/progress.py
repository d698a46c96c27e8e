"""What a person sees while runs are going on: a live table on a terminal, log lines elsewhere."""

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from subnetbench.harness.planning import Plan
from subnetbench.harness.run_folder import RunFolder

_REFRESH_SECONDS = 0.5


class ProgressDisplay:
    """Follows a plan through the launcher's events and the runs' heartbeat files."""

    def __init__(self, plan: Plan, results: Path) -> None:
        self.results = results
        self.total = len(plan.specs)
        self.done = len(plan.finished)
        self.failed = len(plan.failed)
        self.running: dict[str, float] = {}
        self._last = 0.0
        self._live: Any = None
        if plan.finished or plan.failed:
            print(f"{len(plan.finished)} finished before, {len(plan.failed)} failed before, {len(plan.todo)} to do")

    def __enter__(self) -> Self:
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(self._table(), refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, value, trace)

    def event(self, run_id: str, event: str, detail: str) -> None:
        """A launcher's event: `started`, or how a run ended."""
        seconds = ""
        if event == "started":
            self.running[run_id] = time.monotonic()
        elif event != "stopping":
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
        if self._live is not None:
            from rich.text import Text

            self._live.console.print(Text(line))
            self._live.update(self._table())
        else:
            print(time.strftime("%H:%M:%S"), line, flush=True)

    def _table(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, show_header=False)
        for run_id, begun in self.running.items():
            facts = RunFolder(self.results, run_id).progress() or {}
            step, total = facts.get("step", 0), facts.get("total_steps", 0) or 1
            where = f"{facts.get('stage', 'starting')} {facts.get('epoch', 0)}/{facts.get('epochs', '?')}"
            if facts.get("phase") == "evaluating":
                where, step = "evaluating", total
            seconds = f"{time.monotonic() - begun:.0f} s"
            table.add_row(Text(run_id), ProgressBar(total=total, completed=step, width=24), where, seconds)
        table.add_row(Text(f"{self.done}/{self.total} finished, {self.failed} failed", style="bold"))
        return table
