"""The driver: keeps all slots busy with trials of one or more studies, and never waits for the slowest of a batch."""

import time
from collections import deque
from collections.abc import Callable, Sequence

from subnetbench.harness.execution.signals import termination_as_interrupt
from subnetbench.harness.tuning.results import Job
from subnetbench.harness.tuning.search import Search
from subnetbench.harness.tuning.trial_launchers import Ended, TrialLauncher

AGAIN = ("interrupted", "elsewhere")
"""Statuses of runs that resume when they are started again."""

TrialEnded = Callable[[Search, int], None]
"""Called after the result of a trial went to its study, with the trial's number."""


class Driver:
    """Asks the studies for trials and gives them to a launcher, as long as the studies want more.

    Studies are served in order: a slot goes to the first that wants a trial, so the last trials of one study run
    beside the first ones of the next. Nothing that matters is kept here: after a kill, the studies and the run
    folders say what is under way.
    """

    def __init__(
        self,
        searches: Sequence[Search],
        launcher: TrialLauncher,
        workers: int,
        *,
        trial_ended: TrialEnded = lambda search, number: None,
    ) -> None:
        self.searches = searches
        self.launcher = launcher
        self.workers = workers
        self.trial_ended = trial_ended
        self._jobs: dict[str, list[tuple[Search, Job]]] = {}
        self._recovered: deque[tuple[Search, Job]] = deque()

    def run(self) -> bool:
        """Drive until no study wants another trial. False when it was interrupted; the same call resumes."""
        with termination_as_interrupt():
            try:
                for search in self.searches:
                    self._recovered.extend((search, job) for job in search.recover())
                self.fill()
                while self._jobs:
                    for ended in self.launcher.wait():
                        self._run_ended(ended)
                    self.fill()
            except KeyboardInterrupt:
                self.launcher.stop()
                return False
        return True

    def in_flight(self, search: Search | None = None) -> int:
        """Trials under way, of one study or of all."""
        found = sum(search is None or own is search for jobs in self._jobs.values() for own, _ in jobs)
        return found + sum(search is None or own is search for own, _ in self._recovered)

    def fill(self) -> None:
        """Propose and start trials until the slots are full or nobody wants more."""
        while self._recovered and len(self._jobs) < self.workers:
            self._continue(*self._recovered.popleft())
        while len(self._jobs) < self.workers:
            search = next((each for each in self.searches if each.wants_trial(self.in_flight(each))), None)
            if search is None:
                return
            job = search.propose()
            if job is not None:
                self._continue(search, job)

    def _continue(self, search: Search, job: Job) -> None:
        """Start a trial's next run, unless it is over already."""
        while True:
            run_id = job.spec.run_id
            if run_id in self._jobs:
                # The same configuration is under way: one run, and each trial gets its result.
                self._jobs[run_id].append((search, job))
                return
            settings = search.settings(job, self.launcher.settings)
            attached = self.launcher.attach(job.spec, settings)
            status = None if attached else search.on_disk(job)
            if status is None:
                self._jobs[run_id] = [(search, job)]
                if not attached:
                    self.launcher.start(job.spec, settings)
                return
            if self._report(search, job, Ended(run_id, status, time.time(), time.time())):
                return

    def _run_ended(self, ended: Ended) -> None:
        jobs = self._jobs.pop(ended.run_id, None)
        if jobs is None:
            for search in {
                id(own): own for each in self._jobs.values() for own, job in each if _needs(job, ended)
            }.values():
                search.add_input_cost(ended.run_id)
            return
        if ended.status in AGAIN:
            self._jobs[ended.run_id] = jobs
            search, job = jobs[0]
            self.launcher.start(job.spec, search.settings(job, self.launcher.settings))
            return
        unfinished = [(search, job) for search, job in jobs if not self._report(search, job, ended)]
        for search, job in unfinished:
            self._continue(search, job)

    def _report(self, search: Search, job: Job, ended: Ended) -> bool:
        trial_over = search.run_ended(job, ended)
        if trial_over:
            self.trial_ended(search, job.trial.number)
        return trial_over


def _needs(job: Job, ended: Ended) -> bool:
    return any(spec.run_id == ended.run_id for spec in job.spec.dependencies())
