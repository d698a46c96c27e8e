"""A report as files: the page, and the figures of the same content."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from subnetbench.harness.report.content import Options
from subnetbench.harness.report.figures import check_formats, write_figures
from subnetbench.harness.report.page import write_page
from subnetbench.harness.report.types import ReportContent


@dataclass(frozen=True)
class Report:
    """What was written, and what it shows."""

    page: Path
    content: ReportContent
    figures: tuple[Path, ...] = ()


def write_report(
    paths: Path | str | Iterable[Path | str],
    out: Path | str = "report.html",
    options: Options | None = None,
    *,
    figures: Path | str | None = None,
    formats: Sequence[str] = ("pdf", "png"),
) -> Report:
    """Write one HTML file that opens offline: leaderboard, figures, and every run with the command that repeats it.

    Args:
        paths: Results folders or record files.
        out: The HTML file; written over if it exists.
        options: Title, rows, published values, and how much is shown of single runs.
        figures: A folder for the same figures as files for a paper; None: no such files.
        formats: Their formats, out of pdf, png and svg.

    Raises:
        UserError: No run is recorded there, a name is not known, `out` cannot be written, or figures are wanted and
            matplotlib is not installed.

    Example:
        >>> from subnetbench.harness.report import write_report
        >>> report = write_report("tests/data/version_0_1", folder / "report.html")
        >>> report.page.name, len(report.content.rows)
        ('report.html', 6)
    """
    wanted = check_formats(formats) if figures is not None else ()
    content = write_page(paths, out, options)
    drawn = write_figures(content, figures, wanted) if figures is not None else []
    return Report(Path(out), content, tuple(drawn))
