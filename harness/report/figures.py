"""The figures of a report for a paper, by matplotlib: PDF and PNG by default, SVG on request.

They draw the same content as the page, in the same colours and shapes. Everything is text to them: names are never
read as formulas.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.files import publish
from subnetbench.harness.report import drawing, overall_drawing
from subnetbench.harness.report.drawing import MOST_ROWS, Draw
from subnetbench.harness.report.figure_rows import costs_of, matrices_of
from subnetbench.harness.report.looks import STYLE, Look, Style
from subnetbench.harness.report.types import Contest, ReportContent, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("pdf", "png", "svg")

_WIDTH = 3.5  # inches, one column of a paper


def check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats, once each. Raises `UserError` for an unknown one, and where matplotlib is not installed."""
    for name in formats:
        if name not in FORMATS:
            raise UserError(
                "no such format of figures", field="--figure-format", value=name, allowed=", ".join(FORMATS)
            )
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        message = "figures for a paper need matplotlib: pip install 'subnetbench[report]'"
        raise UserError(message, field="--figures") from None
    return tuple(dict.fromkeys(formats))


def write_figures(content: ReportContent, folder: Path | str, formats: Sequence[str] = ("pdf", "png")) -> list[Path]:
    """Write every figure of a report's content into a folder, one file a format.

    Args:
        content: What `report_content` gathered.
        folder: Made if need be; files of the same names are written over.
        formats: Out of `FORMATS`.

    Returns:
        The files. Their names say what is drawn: `trade-off-emoji-classification-test-top1-sparsity.pdf`.

    Raises:
        UserError: A format is not known, or matplotlib is not installed.
    """
    formats = check_formats(formats)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    written = []
    with mpl.rc_context(STYLE):
        for name, size, draw in _named(content):
            figure = Figure(figsize=size)
            draw(figure.add_subplot())
            written += [save(figure, Path(folder) / f"{name}.{suffix}") for suffix in formats]
    return written


def save(figure: "Figure", path: Path) -> Path:
    """Write a figure in the format of the file's suffix; the same figure gives the same bytes."""
    # Without the date the same results give the same files.
    metadata: Style = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix, {})
    publish(path, lambda file: figure.savefig(file, format=path.suffix[1:], metadata=metadata), overwrite=True)
    return path


Planned = tuple[Sequence[str], tuple[float, float], Draw]
"""Words of the name, size in inches, and what draws a figure."""


def _named(content: ReportContent) -> Iterator[tuple[str, tuple[float, float], Draw]]:
    look = Look([*(row.method for row in content.rows), *(study.method for study in content.studies)])
    taken: set[str] = set()
    for words, size, draw in _planned(content, look):
        base = "-".join(filter(None, (re.sub(r"[^A-Za-z0-9._]+", "-", str(word)).strip("-.") for word in words)))[:120]
        name = next(n for i in range(len(taken) + 1) if (n := f"{base}-{i + 1}" if i else base) not in taken)
        taken.add(name)
        yield name, size, draw


def _planned(content: ReportContent, look: Look) -> Iterator[Planned]:
    for index, contest in enumerate(content.contests):
        if contest.lead:
            yield from _of_contest(content, contest, [row for row in content.rows if row.contest == index], look)
    for found in content.overall:
        yield from overall_drawing.planned(found, _WIDTH)
    for study in content.studies:
        if any(trial.value is not None for trial in study.trials):
            words = ("study", study.study, study.method, study.dataset)
            yield words, (_WIDTH, 2.4), drawing.study_history(study)


def _of_contest(content: ReportContent, contest: Contest, rows: list[Row], look: Look) -> Iterator[Planned]:
    lead, what = contest.lead, (contest.dataset, contest.task, contest.split)
    for cost in costs_of(content, rows):
        yield ("trade-off", *what, lead, cost), (_WIDTH, 2.6), drawing.trade_off(content, rows, cost, lead, look)
    for members in matrices_of(rows):
        size = (_WIDTH, 0.5 + 0.42 * len({row.variant for row in members}))
        method = members[0].input_of or members[0].method
        yield ("matrix", *what, lead, method), size, drawing.matrix(members, lead)
    shown = [row for row in rows if lead in row.cells][:MOST_ROWS]
    yield ("seeds", *what, lead), (_WIDTH, 0.6 + 0.19 * len(shown)), drawing.seeds(content, shown, lead, look)
    tag = f"validation/{lead}"
    if any(tag in run.history for _, run in drawing.runs_of(content, shown)):
        yield ("curves", *what, lead), (_WIDTH, 2.6), drawing.learning_curves(content, shown, tag, look)
