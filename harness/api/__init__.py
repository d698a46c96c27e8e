"""What each command does, as one public function with typed results; the command line only parses and prints.

Everything here is imported on first use: listing methods, or reading a leaderboard, does not wait for torch.
"""

from typing import TYPE_CHECKING

from subnetbench.harness.core.lazy import lazy_exports

if TYPE_CHECKING:
    from subnetbench.harness.api.aggregating import Aggregate, aggregate
    from subnetbench.harness.api.boards import (
        BoardView,
        Sources,
        compare,
        curve,
        leaderboard,
        matrix,
        merge,
        sources,
    )
    from subnetbench.harness.api.claiming import ClaimsTested, claims
    from subnetbench.harness.api.cleaning import Removed, clean
    from subnetbench.harness.api.costs import SweepEstimate, plan
    from subnetbench.harness.api.explaining import explain
    from subnetbench.harness.api.exporting import FORMATS, Exported, export
    from subnetbench.harness.api.importing import import_
    from subnetbench.harness.api.machine import Finding, doctor
    from subnetbench.harness.api.plugins import (
        DatasetCheck,
        DatasetDescription,
        MethodDescription,
        check_dataset,
        datasets,
        describe_dataset,
        describe_method,
        fetch_dataset,
        find_duplicates,
        methods,
    )
    from subnetbench.harness.api.publishing import Published, publish, report
    from subnetbench.harness.api.reproducing import Outcome, Reproduction, reproduce
    from subnetbench.harness.api.reproduction_checks import Check
    from subnetbench.harness.api.running import LoggedProgress, Progress, Sweep, run, sweep
    from subnetbench.harness.api.runs import Run, load_run
    from subnetbench.harness.api.states import RunLog, Status, logs, status, watch
    from subnetbench.harness.api.submitting import Submission, SubmittedArray, cancel
    from subnetbench.harness.api.tracking import History, history
    from subnetbench.harness.api.trained import Embedding, Evaluation, embed, evaluate
    from subnetbench.harness.api.validating import Validation, validate
    from subnetbench.harness.core.config import ConfigField
    from subnetbench.harness.core.errors import DataError, SubnetbenchError, UserError
    from subnetbench.harness.core.registry import load_plugin
    from subnetbench.harness.data.duplicates import Duplicates, NearPair
    from subnetbench.harness.leaderboard import Leaderboard
    from subnetbench.harness.leaderboard.compare import Differences
    from subnetbench.harness.leaderboard.compare_formats import render as render_differences
    from subnetbench.harness.leaderboard.curves import Line
    from subnetbench.harness.leaderboard.document import number
    from subnetbench.harness.leaderboard.explain import Explanation
    from subnetbench.harness.leaderboard.matrix import Matrix
    from subnetbench.harness.records.merge import Merged
    from subnetbench.harness.records.validate import Fault
    from subnetbench.harness.report import Report
    from subnetbench.harness.tuning.result import TuneResult
    from subnetbench.harness.tuning.tune import tune

__all__ = [
    "FORMATS",
    "Aggregate",
    "BoardView",
    "Check",
    "ClaimsTested",
    "ConfigField",
    "DataError",
    "DatasetCheck",
    "DatasetDescription",
    "Differences",
    "Duplicates",
    "Embedding",
    "Evaluation",
    "Explanation",
    "Exported",
    "Fault",
    "Finding",
    "History",
    "Leaderboard",
    "Line",
    "LoggedProgress",
    "Matrix",
    "Merged",
    "MethodDescription",
    "NearPair",
    "Outcome",
    "Progress",
    "Published",
    "Removed",
    "Report",
    "Reproduction",
    "Run",
    "RunLog",
    "Sources",
    "Status",
    "Submission",
    "SubmittedArray",
    "SubnetbenchError",
    "Sweep",
    "SweepEstimate",
    "TuneResult",
    "UserError",
    "Validation",
    "aggregate",
    "cancel",
    "check_dataset",
    "claims",
    "clean",
    "compare",
    "curve",
    "datasets",
    "describe_dataset",
    "describe_method",
    "doctor",
    "embed",
    "evaluate",
    "explain",
    "export",
    "fetch_dataset",
    "find_duplicates",
    "history",
    "import_",
    "leaderboard",
    "load_plugin",
    "load_run",
    "logs",
    "matrix",
    "merge",
    "methods",
    "number",
    "plan",
    "publish",
    "render_differences",
    "report",
    "reproduce",
    "run",
    "sources",
    "status",
    "sweep",
    "tune",
    "validate",
    "watch",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(__name__, __all__)
