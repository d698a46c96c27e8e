"""Commands that hand results on: `report`, which reads records only and never imports torch, `reproduce`, `publish`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from subnetbench.harness import api
from subnetbench.harness.cli.common import (
    Confidence,
    DataRoot,
    Folders,
    FromMemory,
    Interval,
    Metrics,
    Select,
    Splits,
    Where,
    note,
    print_table,
)


def report(
    folders: Folders,
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("report.html"),
    figures: Annotated[
        Path | None, typer.Option("--figures", help="Write the figures to this folder too, for a paper.")
    ] = None,
    figure_format: Annotated[
        list[str] | None, typer.Option("--figure-format", help="pdf, png or svg, repeatable [default: pdf and png].")
    ] = None,
    title: Annotated[str, typer.Option("--title", help="Title of the page.")] = "Leaderboard",
    metric: Metrics = None,
    where: Where = None,
    split: Splits = None,
    select: Select = None,
    confidence: Confidence = 0.95,
    interval: Interval = "joint",
    from_memory: FromMemory = False,
) -> None:
    """One HTML file that opens offline: leaderboard, figures, and every run's config, environment, log and command.

    Example: `subnetbench report results/quickstart --out report.html --figures figures`

    Example: `subnetbench report results/sweep --select validation`
    """
    written = api.report(
        folders,
        out,
        figures=figures,
        figure_formats=figure_format or ("pdf", "png"),
        title=title,
        metrics=metric,
        where=where,
        splits=split or ("test",),
        select=select,
        confidence=confidence,
        interval=interval,
        from_memory=from_memory,
    )
    rows, runs = len(written.content.rows), len(written.content.runs)
    typer.echo(f"{written.page}: {rows:,} rows, {runs:,} runs, {written.page.stat().st_size / 1e6:.1f} MB")
    for path in written.figures:
        typer.echo(path)


def reproduce(
    run: Annotated[str, typer.Argument(help="Run folder, or (the beginning of) the id of a finished run.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Results folder in which run ids are looked up [default: results].")
    ] = None,
    into: Annotated[
        Path | None, typer.Option("--into", help="Fresh results folder for the new run [default: reproduced/RUN-N].")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only check code, environment and data; status 1 if any differs.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0.0, help="Largest difference of a score that is accepted.")
    ] = 0.0,
    data_root: DataRoot = None,
) -> None:
    """Check what a run depends on against what is here, run it again, and compare its scores bit for bit.

    Exit status 1 when a score differs by more than the tolerance, or the run does not finish.

    Example: `subnetbench reproduce edge_popup-emoji-s1 --out results/quickstart`
    """
    repeated = api.reproduce(
        run,
        results=out,
        into=into,
        check=check,
        data_root=data_root,
        checked=_print_checks,
        on_event=lambda run_id, event, detail: note(f"{event}: {run_id}"),
    )
    if repeated.outcome is not None:
        _print_outcome(repeated.outcome)
    if not repeated.within(tolerance):
        raise typer.Exit(1)


def publish(
    folders: Folders,
    out: Annotated[Path, typer.Option("--out", help="New or empty folder to write.")] = Path("publication"),
    title: Annotated[str, typer.Option("--title", help="Title of card and report.")] = "Leaderboard",
    licence: Annotated[
        str, typer.Option("--licence", help="Licence of the results, as Hugging Face names it, e.g. `cc-by-4.0`.")
    ] = "unknown",
    where: Where = None,
    upload: Annotated[
        str | None, typer.Option("--upload", help="Also upload, as this Hugging Face data set (OWNER/NAME).")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make the uploaded data set public.")] = False,
) -> None:
    """A folder to share: leaderboard and records as parquet, report, figures, and a card with methods and licences.

    Nothing is uploaded unless `--upload` names where to. No data, no weights, no names of machines, no logs.

    Example: `subnetbench publish results/quickstart --out publication --title "Quickstart" --licence cc-by-4.0`
    """
    published = api.publish(folders, out, title=title, licence=licence, where=where, upload_to=upload, public=public)
    for path in published.files:
        typer.echo(path)
    if published.address:
        typer.echo(published.address)


def _print_checks(run_id: str, checks: "Sequence[api.Check]") -> None:
    rows = [(each.name, "same" if each.same else "DIFFERS", each.recorded, each.here) for each in checks]
    print_table(("what", "", "recorded", "here"), rows)
    differing = ", ".join(each.name for each in checks if not each.same)
    typer.echo(f"{run_id}: {differing or 'nothing'} differs from the record")


def _print_outcome(outcome: "api.Outcome") -> None:
    if outcome.differing:
        rows = [(*key, *("–" if v is None else f"{v:.17g}" for v in pair)) for key, pair in outcome.differing.items()]
        print_table(("split", "variant", "gallery", "metric", "recorded", "again"), rows)
        typer.echo(
            f"{len(outcome.differing)} of {outcome.compared} scores differ, by {outcome.largest:.3g} at most "
            f"(times are not compared)"
        )
    else:
        typer.echo(f"all {outcome.compared} scores are equal bit for bit (times are not compared)")
    weights = {True: "are equal bit for bit", False: "differ", None: "of the recorded run are gone; not compared"}
    typer.echo(f"trained weights {weights[outcome.weights_equal]}")
    items = outcome.items_differing
    typer.echo(
        "outcomes by item are not there; not compared" if items is None else f"{items:,} outcomes by item differ"
    )
    note(f"files: {outcome.folder}")
