"""Reports: one HTML page that opens offline, and figures for a paper. Importing this imports neither torch nor matplotlib."""

from subnetbench.harness.report.content import Options, report_content
from subnetbench.harness.report.page import render_page, write_page
from subnetbench.harness.report.runs import Detail
from subnetbench.harness.report.types import ReportContent
from subnetbench.harness.report.write import Report, write_report

__all__ = [
    "Detail",
    "Options",
    "Report",
    "ReportContent",
    "render_page",
    "report_content",
    "write_page",
    "write_report",
]
