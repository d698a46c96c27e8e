"""Commands over records: `history`, by version of the code, and `claims`, statements that they must bear out. None of them imports torch."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from subnetbench.harness import api
from subnetbench.harness.cli.common import Confidence, Folders, Format, Metrics, Splits, Where, note, print_text, width


def history(
    folders: Folders,
    metric: Metrics = None,
    where: Where = None,
    split: Splits = None,
    by: Annotated[
        Literal["commit", "code"],
        typer.Option("--by", help="What a version is: a commit, or the source of method and data set."),
    ] = "commit",
    confidence: Confidence = 0.95,
    draw: Annotated[
        Path | None, typer.Option("--draw", help="Draw into a .png, .svg, .pdf or .pgf (LaTeX) file as well.")
    ] = None,
    format: Format = "terminal",
    json_: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write to a file: .parquet, .csv, .json, .md, .tex or .txt.")
    ] = None,
) -> None:
    """Show a metric by version of the code, in the order of time, with intervals and the test of each change.

    Example: `subnetbench history results/nightly --metric top1 --where "method == 'aslp'" --out history.md`
    """
    found = api.history(
        folders, metrics=metric, where=where, splits=split or ("test",), by=by, confidence=confidence, draw=draw
    )
    if draw is not None:
        note(f"drew {draw}", err=True)
    if out is not None:
        found.write(out)
        note(f"wrote {out}")
        return
    print_text(found.text("json" if json_ else format, width()))


def claims(
    file: Annotated[Path, typer.Argument(help="YAML file of claims.")],
    results: Annotated[
        list[Path] | None,
        typer.Option("--results", help="Results folder or record file, repeatable [default: those of the file]."),
    ] = None,
    allow_undecided: Annotated[
        bool, typer.Option("--allow-undecided", help="Claims that the seeds cannot decide give no status 1.")
    ] = False,
    format: Format = "terminal",
    json_: Annotated[bool, typer.Option("--json", help="Short for --format json: with the runs behind each.")] = False,
) -> None:
    """Test the statements of a claim file: interval, power and verdict of each; status 1 when one does not hold.

    Example: `subnetbench claims claims.yaml --results results/main --json`
    """
    found = api.claims(file, results, allow_undecided=allow_undecided)
    print_text(found.text("json" if json_ else format, width()))
    if found.exit_status:
        raise typer.Exit(found.exit_status)
