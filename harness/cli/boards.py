"""Commands over records: `leaderboard`, `compare`, `merge`, `validate`. None of them imports torch."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from subnetbench.harness import api
from subnetbench.harness.cli.common import (
    Confidence,
    Folders,
    Format,
    FromMemory,
    Interval,
    Json,
    Metrics,
    Select,
    Splits,
    Where,
    filters_as_typed,
    note,
    print_json,
    print_text,
    width,
    words,
)
from subnetbench.harness.core.errors import UserError


def leaderboard(
    folders: Folders,
    metric: Metrics = None,
    where: Where = None,
    sort: Annotated[
        list[str] | None, typer.Option("--sort", help="Column or metric, `-` before it for descending [default: rank].")
    ] = None,
    split: Splits = None,
    select: Select = None,
    within: Annotated[
        list[str] | None,
        typer.Option(
            "--group-by",
            "--rank-within",
            help="A table and ranks for each value of this too, e.g. `capacity`, `budget`.",
        ),
    ] = None,
    trials: Annotated[bool, typer.Option("--trials", help="Show the trials of searches too.")] = False,
    confidence: Confidence = 0.95,
    interval: Interval = "joint",
    by: Annotated[
        Literal["machine"] | None,
        typer.Option("--by", help="`machine`: a row for each machine, so that times have a mean."),
    ] = None,
    std: Annotated[bool, typer.Option("--std", help="Show standard deviations beside intervals.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Most rows of each table; 0: all.")] = 500,
    sources: Annotated[
        bool, typer.Option("--sources", help="The runs behind each value instead: value, file, commit, data, command.")
    ] = False,
    published: Annotated[
        bool,
        typer.Option("--published", help="Set values that papers print beside measured ones, or say why they cannot."),
    ] = False,
    from_memory: FromMemory = False,
    format: Format = "terminal",
    json_: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write to a file: .parquet, .csv, .json, .md, .tex or .txt.")
    ] = None,
) -> None:
    """Compare what was measured: mean and interval over seeds, rank, costs, trivial baselines.

    Example: `subnetbench leaderboard results/quickstart --where "sparsity >= 0.5" --format markdown`

    Example: `subnetbench leaderboard results/sweep --select validation --group-by sparsity`
    """
    format = "json" if json_ else format
    splits = split or ("test",)
    if sources and by is not None:
        raise UserError("each run is of one machine", field="--by", value=by, allowed="without --sources")
    found: api.Sources | api.BoardView
    if sources:
        found = api.sources(
            folders,
            metrics=metric,
            where=where,
            sort=sort or (),
            splits=splits,
            select=select,
            within=within or (),
            trials=trials,
        )
    else:
        found = api.leaderboard(
            folders,
            metrics=metric,
            where=where,
            sort=sort or (),
            splits=splits,
            select=select,
            within=within or (),
            trials=trials,
            confidence=confidence,
            interval=interval,
            by=by,
            std=std,
            limit=limit or None,
            published=published,
            from_memory=from_memory,
        )
    if out is not None:
        found.write(out)
        note(f"wrote {out}")
        return
    print_text(found.text(format, width()))
    if sources and format == "terminal":
        note("Commands that repeat the runs: --format csv or json.")


_By = Annotated[
    list[str] | None,
    typer.Option("--by", help="Column that makes an entrant, repeatable, e.g. `variant` [default: method]."),
]
_Normalise = Annotated[
    Literal["optimum", "best", "none"],
    typer.Option("--normalise", help="What is 1: the best possible value, the best entrant's mean; or no scale."),
]
_Missing = Annotated[
    Literal["refuse", "drop-methods", "drop-datasets"],
    typer.Option("--missing", help="What to do with what is not there on every data set."),
]


def aggregate(
    folders: Folders,
    by: _By = None,
    metric: Metrics = None,
    where: Where = None,
    split: Splits = None,
    select: Select = None,
    normalise: _Normalise = "optimum",
    missing: _Missing = "refuse",
    trials: Annotated[bool, typer.Option("--trials", help="Count the trials of searches too.")] = False,
    confidence: Confidence = 0.95,
    format: Format = "terminal",
    json_: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write to a file: .parquet, .csv, .json, .md, .tex or .txt.")
    ] = None,
) -> None:
    """Compare over data sets: mean rank, normalised scores, probability of improvement, profiles, Borda count.

    Example: `subnetbench aggregate results/main --by method --by variant --where "sparsity >= 0.5"`
    """
    found = api.aggregate(
        folders,
        by=by or ("method",),
        metrics=metric,
        where=where,
        splits=split or ("test",),
        select=select,
        normalise=normalise,
        missing=missing,
        trials=trials,
        confidence=confidence,
    )
    if out is not None:
        found.write(out)
        note(f"wrote {out}")
        return
    print_text(found.text("json" if json_ else format, width()))


_Before = Annotated[Path, typer.Argument(help="Results folder or record file: before, or of the rows of --a.")]
_After = Annotated[
    Path | None, typer.Argument(help="The same: after, or of the rows of --b [default with --a and --b: the first].")
]
_A = Annotated[
    str | None, typer.Option("--a", help="Filter of rows, as `--where`: compare each of these with each of --b.")
]
_B = Annotated[str | None, typer.Option("--b", help="Filter of rows: what those of --a are compared with.")]
_Match = Annotated[
    list[str] | None, typer.Option("--match", help="In what rows of --a and --b must agree, e.g. `sparsity`.")
]
_AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Rows that vanished or lost seeds to failures are only listed.")
]
_Against = Annotated[
    Path | None, typer.Option("--against", help="The reference: `compare NEW --against OLD` is `compare OLD NEW`.")
]
_FailOn = Annotated[
    str | None,
    typer.Option(
        "--fail-on",
        help="What gives status 1, of worse, missing, changed, undecided, unproven, failed; or none [default: worse,missing].",
    ),
]
_Markdown = Annotated[Path | None, typer.Option("--markdown", help="Write a summary to this file too, as Markdown.")]
_Junit = Annotated[
    Path | None, typer.Option("--junit", help="Write each row as a test case to this JUnit XML file too.")
]
_Test = Annotated[
    Literal["t", "sign_flip", "wilcoxon"], typer.Option("--test", help="Test of rows with matching seeds.")
]
_Pair = Annotated[
    Literal["seeds", "items", "joint"] | None,
    typer.Option(
        "--pair",
        help="Test differences over seeds, over test items for these runs, or over both [default: both (joint) with --a and "
        "--b, seeds for two folders; seeds where no outcomes by item are stored].",
    ),
]
_Margin = Annotated[float, typer.Option("--margin", help="How much worse is acceptable, in the metric's unit.")]
_Across = Annotated[
    list[str] | None, typer.Option("--across", help="Column in which the two sides may differ, e.g. `tuned`.")
]
_Level = Annotated[float, typer.Option("--confidence", help="Confidence of intervals, level of the tests.")]


@filters_as_typed()
def compare(
    before: _Before,
    after: _After = None,
    a: _A = None,
    b: _B = None,
    match: _Match = None,
    allow_missing: _AllowMissing = False,
    against: _Against = None,
    fail_on: _FailOn = None,
    markdown: _Markdown = None,
    junit: _Junit = None,
    metric: Metrics = None,
    where: Where = None,
    split: Splits = None,
    test: _Test = "t",
    pair: _Pair = None,
    margin: _Margin = 0.0,
    across: _Across = None,
    confidence: _Level = 0.95,
    format: Format = "terminal",
) -> None:
    """What changed between two leaderboards, or how one set of rows differs from another.

    Exit status 1: a row is worse beyond the margin, is missing, or lost seeds to failed runs; see `--fail-on`. Examples:
    `subnetbench compare results/new --against results/reference --margin 0.01 --junit gate.xml`,
    `subnetbench compare results/main --a "method == 'aslp'" --b "method == 'supermask'" --match sparsity`
    """
    differences = api.compare(
        before,
        after,
        a=a,
        b=b,
        match=match or (),
        allow_missing=allow_missing,
        against=against,
        fail_on=words(fail_on) if fail_on is not None else ("worse", "missing"),
        markdown=markdown,
        junit=junit,
        metrics=metric,
        where=where,
        splits=split or ("test",),
        test=test,
        pair=pair,
        margin=margin,
        across=across or (),
        confidence=confidence,
    )
    print_text(api.render_differences(differences, format, width=width()))
    if status := differences.exit_status:
        raise typer.Exit(status)


def explain(
    row_a: Annotated[
        str | None, typer.Argument(help="A run of the first row, by (the beginning of) its id or by its folder.")
    ] = None,
    row_b: Annotated[
        str | None, typer.Argument(help="A run of the second [default: the other row of the same run id].")
    ] = None,
    a: Annotated[str | None, typer.Option("--a", help="Filter that selects the first row, as `--where`.")] = None,
    b: Annotated[str | None, typer.Option("--b", help="Filter that selects the second row.")] = None,
    folder: Annotated[
        list[Path] | None, typer.Option("--folder", help="Results folder, repeatable [default: all in results/].")
    ] = None,
    format: Format = "terminal",
    json_: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
) -> None:
    """In what two rows of a leaderboard differ: config, data, code, numerics, files, libraries, machine, what was spent.

    Rows are named by a run of each, or by a filter for each. Two runs of one row are compared themselves.

    Example: `subnetbench explain aslp-emoji-s0-3f2a aslp-emoji-s0-77ab --folder results/main`

    Example: `subnetbench explain --a "method == 'aslp'" --b "method == 'supermask'" --folder results/main`
    """
    found = api.explain(row_a, row_b, a=a, b=b, folder=folder)
    print_text(found.text("json" if json_ else format, width()))


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Results folders.")],
    out: Annotated[Path | None, typer.Option("--out", help="One file for all; nothing is removed then.")] = None,
) -> None:
    """Compact the record files of folders into one each; both stay readable throughout.

    Example: `subnetbench merge results/big_sweep`
    """
    for merged in api.merge(folders, out):
        typer.echo(f"{merged.path}: {merged.records} records, {len(merged.removed)} files removed")
        if merged.items or merged.items_lacking:
            lacking = f", {merged.items_lacking} more are absent or not what is stated" if merged.items_lacking else ""
            typer.echo(f"{merged.items} files of outcomes by item belong to it{lacking}")
        for skipped in merged.skipped:
            typer.echo(f"left alone: {skipped.path}: {skipped.reason}", err=True)
        for fault in merged.faults:
            typer.echo(f"not merged: {fault}", err=True)


def validate(folders: Folders, json_: Json = False) -> None:
    """Check records before they are merged into a board: each fault with what is allowed; exit status 1 for any.

    Example: `subnetbench validate submission --json`
    """
    checked = api.validate(folders)
    if json_:
        print_json(checked.to_json())
    else:
        for fault in checked.faults:
            typer.echo(str(fault))
        holes = f" ({checked.not_finite:,} with values that are not finite)" if checked.not_finite else ""
        typer.echo(f"{checked.records:,} valid records{holes}, {checked.invalid:,} invalid, in {checked.files:,} files")
        absent = f", {checked.items_absent:,} of these files are not there" if checked.items_absent else ""
        typer.echo(f"{checked.items:,} with scores by item{absent}")
    if checked.exit_status:
        raise typer.Exit(checked.exit_status)


def print_board(folder: Path) -> None:
    """The leaderboard of one results folder, as a run or sweep shows it at its end."""
    print_text("\n" + api.leaderboard(folder).text(width=width()))
