"""Reports: one HTML page that opens offline, and figures for a paper. Importing this imports neither torch nor matplotlib."""

from subnetbench.harness.report.content import Options, report_content
from subnetbench.harness.report.page import render_page, write_page

__all__ = ["Options", "render_page", "report_content", "write_page"]
