"""Handing results on: the report page, and a folder to share. Nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from subnetbench.harness.api.lookup import Paths, existing
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.leaderboard import View, load_published
from subnetbench.harness.leaderboard.item_intervals import IntervalKind
from subnetbench.harness.report import Options, Report, write_report
from subnetbench.harness.report.publish import Publication, upload, write_publication


@dataclass(frozen=True)
class Published:
    """A folder that was written to be shared: its files and, where it was uploaded, its address."""

    files: tuple[Path, ...]
    address: str


def report(
    folders: Paths,
    out: Path | str = "report.html",
    *,
    figures: Path | str | None = None,
    figure_formats: Sequence[str] = ("pdf", "png"),
    title: str = "Leaderboard",
    metrics: Sequence[str] | None = None,
    where: str | None = None,
    splits: Sequence[str] | None = ("test",),
    select: Literal["validation"] | None = None,
    confidence: float = 0.95,
    interval: IntervalKind = "joint",
    from_memory: bool = False,
) -> Report:
    """One HTML file that opens offline: leaderboard, figures, and every run's config, environment, log and command.

    Args:
        folders: Results folders or record files, of any number of machines.
        out: HTML file to write.
        figures: Write the figures to this folder too, for a paper.
        figure_formats: `pdf`, `png` or `svg`.
        title: Title of the page.
        metrics: Metrics to show; None: all.
        where: Filter of rows, as for `leaderboard`.
        splits: Splits to show; None: all.
        select: `validation`: show of each method the config that is best on the validation split.
        confidence: Confidence of the intervals, between 0 and 1.
        interval: Over what intervals are, as for `leaderboard`: `seeds`, `items` or `joint`.
        from_memory: Also published values that were entered from memory, not read anywhere.

    Raises:
        UserError: A folder does not exist, no run is recorded there, or an option cannot be used.

    Example:
        >>> from subnetbench.harness import api
        >>> written = api.report("results/quickstart", "report.html")
        >>> len(written.content.runs), written.page.exists()
        (1, True)
    """
    view = View(metrics, where, splits, select=select)
    published = load_published(from_memory=from_memory)
    options = Options(title=title, view=view, published=published, confidence=confidence, interval=interval)
    return write_report(existing(folders), out, options, figures=figures, formats=figure_formats)


def publish(
    folders: Paths,
    out: Path | str = "publication",
    *,
    title: str = "Leaderboard",
    licence: str = "unknown",
    where: str | None = None,
    upload_to: str | None = None,
    public: bool = False,
) -> Published:
    """A folder to share: leaderboard and records as parquet, report, figures, and a card with methods and licences.

    No data, no weights, no names of machines, no logs. Nothing is uploaded unless `upload_to` names where to.

    Args:
        folders: Results folders or record files, of any number of machines.
        out: New or empty folder to write.
        title: Title of card and report.
        licence: Licence of the results, as Hugging Face names it, e.g. `cc-by-4.0`.
        where: Filter of rows, as for `leaderboard`.
        upload_to: Also upload, as this Hugging Face data set (`OWNER/NAME`).
        public: Make the uploaded data set public.

    Raises:
        UserError: A folder does not exist, `out` has something in it, no run is recorded, matplotlib is missing, or
            an upload was asked for without a licence.
        SubnetbenchError: The upload failed.

    Example:
        >>> from subnetbench import publish
        >>> sorted(path.name for path in publish("results/quickstart", "publication").files if path.parent.name == "publication")
        ['README.md', 'leaderboard.parquet', 'records.parquet', 'report.html']
    """
    if upload_to is not None and licence == "unknown":
        raise UserError("say under which licence the results are shared", field="--licence", value=licence)
    if public and upload_to is None:
        raise UserError("nothing is uploaded without --upload", field="--public")
    files = write_publication(existing(folders), out, Publication(title, licence, where))
    address = upload(Path(out), upload_to, private=not public) if upload_to is not None else ""
    return Published(tuple(files), address)
