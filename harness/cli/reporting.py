"""Commands that hand results on: `report`, which reads records only and never imports torch, `reproduce`, `publish`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from subnetbench.harness.cli.boards import Metrics, Where, check_folders
from subnetbench.harness.cli.common import DataRoot, data_root, print_table
from subnetbench.harness.errors import UserError

if TYPE_CHECKING:
    from subnetbench.harness.reproduce import Outcome

Folders = Annotated[list[Path], typer.Argument(help="Results folders or record files, of any number of machines.")]


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
    split: Annotated[list[str] | None, typer.Option("--split", help="Splits to show [default: test].")] = None,
    confidence: Annotated[float, typer.Option("--confidence", help="Confidence of the intervals.")] = 0.95,
) -> None:
    """One HTML file that opens offline: leaderboard, figures, and every run's config, environment, log and command.

    Example: `subnetbench report results/quickstart --out report.html --figures figures`
    """
    from subnetbench.harness.leaderboard import View, load_published
    from subnetbench.harness.report import Options, write_page

    check_folders(folders)
    formats = _formats(figure_format) if figures is not None else ()
    options = Options(
        title=title, view=View(metric, where, split or ("test",)), published=load_published(), confidence=confidence
    )
    content = write_page(folders, out, options)
    rows, runs, size = len(content["rows"]), len(content["runs"]), out.stat().st_size / 1e6
    typer.echo(f"{out}: {rows:,} rows, {runs:,} runs, {size:.1f} MB")
    if figures is not None:
        from subnetbench.harness.report.figures import write_figures

        for path in write_figures(content, figures, formats):
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
    data_root_: DataRoot = None,
) -> None:
    """Check what a run stood on against what is here, run it again, and compare its scores bit for bit.

    Exit status 1 when a score differs by more than the tolerance, or the run does not finish.

    Example: `subnetbench reproduce edge_popup-emoji-s1 --out results/quickstart`
    """
    from subnetbench.harness.reproduce import examine, find_recorded, run_again, spec_of

    recorded = find_recorded(run, out)
    spec = spec_of(recorded)
    root = data_root(data_root_)
    checks = examine(recorded, spec, root)
    print_table(
        ("what", "", "recorded", "here"),
        [(each.name, "same" if each.same else "DIFFERS", each.recorded, each.here) for each in checks],
    )
    differing = [each.name for each in checks if not each.same]
    typer.echo(f"{recorded.run_id}: {', '.join(differing) or 'nothing'} differs from the record")
    if check:
        raise typer.Exit(int(bool(differing)))
    outcome = run_again(recorded, spec, root, into, lambda run_id, event, _: typer.echo(f"{event}: {run_id}"))
    _print_outcome(outcome)
    if outcome.largest > tolerance:
        raise typer.Exit(1)


def publish(
    folders: Folders,
    out: Annotated[Path, typer.Option("--out", help="New or empty folder to write.")] = Path("publication"),
    title: Annotated[str, typer.Option("--title", help="Title of card and report.")] = "Leaderboard",
    licence: Annotated[
        str, typer.Option("--licence", help="Licence of the figures, as Hugging Face names it, e.g. `cc-by-4.0`.")
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
    from subnetbench.harness.publish import Publication, write_publication
    from subnetbench.harness.publish import upload as upload_folder

    check_folders(folders)
    if upload is not None and licence == "unknown":
        raise UserError("say under which licence the figures are shared", field="--licence", value=licence)
    if public and upload is None:
        raise UserError("nothing is uploaded without --upload", field="--public")
    for path in write_publication(folders, out, Publication(title, licence, where)):
        typer.echo(path)
    if upload is not None:
        typer.echo(upload_folder(out, upload, private=not public))


def _print_outcome(outcome: "Outcome") -> None:
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
    typer.echo(f"files: {outcome.folder}")


def _formats(given: list[str] | None) -> tuple[str, ...]:
    """The formats of figures; raises `UserError` early where matplotlib is missing."""
    from subnetbench.harness.report.figures import check_formats

    return check_formats(given or ["pdf", "png"])


def add_commands(app: typer.Typer) -> None:
    for command in (report, reproduce, publish):
        app.command()(command)
