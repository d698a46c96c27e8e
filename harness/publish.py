"""A folder ready to be shared: leaderboard and records as parquet, report, figures, and a card that explains them.

Nothing of a data set is in it, no picture, no weights: figures, names and numbers only. Machines are not named, logs
stay at home, and of paths only file names are kept.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol

import pyarrow as pa

from subnetbench.harness.errors import SubnetbenchError, UserError
from subnetbench.harness.leaderboard import Leaderboard, View, load_published, render, write
from subnetbench.harness.leaderboard.formats import escape_markdown
from subnetbench.harness.leaderboard.published import Figure
from subnetbench.harness.records.check import ENCODED
from subnetbench.harness.records.read import RecordSet, read_records
from subnetbench.harness.records.record import publish, publish_table
from subnetbench.harness.report import Options, write_page
from subnetbench.harness.report.content import Content
from subnetbench.harness.report.figures import check_formats, write_figures
from subnetbench.harness.report.runs import Detail

_PRIVATE_COLUMNS = ("host", "slurm_job_id")
_CARD_ROWS = 40


@dataclass(frozen=True)
class Publication:
    """What the folder says of itself. `licence` is that of the figures in it, as Hugging Face names licences."""

    title: str = "Leaderboard"
    licence: str = "unknown"
    where: str | None = None


class Hub(Protocol):
    """The part of `huggingface_hub.HfApi` that an upload needs."""

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> Any: ...

    def upload_folder(self, *, repo_id: str, folder_path: str, repo_type: str, commit_message: str) -> Any: ...


def write_publication(
    paths: Path | str | Iterable[Path | str], out: Path | str, publication: Publication | None = None
) -> list[Path]:
    """Write the folder `out`, which must be new or empty; returns its files.

    Raises `UserError` for a folder that has something in it, where no run is recorded, or without matplotlib.
    """
    publication = publication or Publication()
    folder = Path(out)
    formats = check_formats(("pdf", "png"))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("must be a new or empty folder", field="--out", value=str(folder))
    roots = [paths] if isinstance(paths, Path | str) else list(paths)
    figures = load_published()
    view = View(where=publication.where)
    options = Options(publication.title, view, figures, Detail(private=False))
    content = write_page(roots, folder / "report.html", options)
    records = _without_places(read_records(roots))
    publish_table(records.long(), folder / "records.parquet", overwrite=True, compression="zstd")
    # From the published file, so that what is beside it can be computed from it.
    board = Leaderboard(folder / "records.parquet")
    write(board, folder / "leaderboard.parquet", view)
    write_figures(content, folder / "figures", formats)
    card = card_of(board, content, publication, figures)
    publish(folder / "README.md", lambda file: file.write(card.encode()), overwrite=True)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def upload(folder: Path, repository: str, *, private: bool = True, hub: Hub | None = None) -> str:
    """Upload a folder as a Hugging Face data set, which is made if need be; returns its address.

    Raises `SubnetbenchError` when the hub refuses or cannot be reached.
    """
    if hub is None:
        from huggingface_hub import HfApi

        hub = HfApi()
    try:
        hub.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            repo_type="dataset",
            commit_message="Leaderboard by subnetbench",
        )
    except Exception as error:  # the hub's client raises errors of several libraries
        raise SubnetbenchError(f"the upload to {repository} failed: {type(error).__name__}: {error}") from error
    return f"https://huggingface.co/datasets/{repository}"


def _without_places(records: RecordSet) -> RecordSet:
    """The records without names of machines, and without folders in the specs."""
    runs = records.runs
    for name in _PRIVATE_COLUMNS:
        runs = _replace(runs, name, pa.array([""] * len(runs)))
    specs = {text: _without_folders(text) for text in runs["spec_json"].unique().to_pylist()}
    runs = _replace(runs, "spec_json", pa.array([specs[text] for text in runs["spec_json"].to_pylist()]))
    return RecordSet(runs, records.scores)


def _replace(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values.cast(pa.string()).cast(ENCODED))


def _without_folders(spec_json: str) -> str:
    """A spec whose input files are named without their folders; their digests stay."""
    if '"file"' not in spec_json:
        return spec_json

    def shorten(value: Any) -> Any:
        if isinstance(value, list):
            return [shorten(item) for item in value]
        if isinstance(value, dict):
            return {
                name: PurePath(item).name if name == "file" and isinstance(item, str) else shorten(item)
                for name, item in value.items()
            }
        return value

    try:
        return json.dumps(shorten(json.loads(spec_json)), sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError):
        return ""


def card_of(board: Leaderboard, content: Content, publication: Publication, figures: Sequence[Figure] = ()) -> str:
    """The card (README.md): how the figures were made, of which data under which licences, and what each file is."""
    import yaml

    front = {
        "license": publication.licence,
        "pretty_name": publication.title,
        "tags": ["subnetbench", "benchmark", "leaderboard", "model-compression"],
        "configs": [{"config_name": name, "data_files": f"{name}.parquet"} for name in ("leaderboard", "records")],
    }
    table = render(board, "markdown", View(where=publication.where, limit=_CARD_ROWS), figures)
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {escape_markdown(publication.title)}",
        f"{content['counts']['finished']} finished runs by {content['program']}, put together on "
        f"{content['created'][:10]}. Figures are means over seeds with 95 % Student t intervals over seeds, not over "
        "test items; failed, pruned and partial runs are counted, never averaged.",
        "## Results",
        table.strip(),
        "## How it was measured",
        _protocols(content),
        "Runs are averaged only where they differ in nothing but their seed: same data digest, split, protocol, budget, "
        "config and preset. What is evaluated is a plain network; sparsity and multiply-accumulates are counted from "
        "its weights.",
        "## Methods",
        _methods(content),
        "## Data and their licences",
        "Nothing of these data sets is in this folder: no image, no caption, no weights.",
        _datasets(content),
        "## Files",
        "- `leaderboard.parquet`: one line for each row and metric, with `run_ids`\n"
        "- `records.parquet`: every score of every run with its config, spec, versions and commit; "
        "`subnetbench leaderboard records.parquet` computes the leaderboard from it\n"
        "- `report.html`: the same to look at, offline; each run with the command that makes it again\n"
        "- `figures/`: PDF and PNG",
    ]
    return "\n\n".join(parts) + "\n"


def _protocols(content: Content) -> str:
    lines = dict.fromkeys(
        f"- {contest['dataset']}, {contest['task']}, split {contest['split']}: {contest['protocol']} "
        f"(data digest `{contest['data_digest']}`)"
        for contest in content["contests"]
    )
    return "\n".join(escape_markdown(line).replace("\\`", "`") for line in lines)


def _methods(content: Content) -> str:
    from subnetbench.harness.registry import get_method

    lines = []
    for name in sorted({row["method"] for row in content["rows"]}):
        try:
            method = get_method(name)
        except SubnetbenchError:
            lines.append(f"- {escape_markdown(name)}: not known to this installation")
            continue
        summary = (method.__doc__ or "").strip().split("\n", 1)[0]
        lines.append(f"- {escape_markdown(' '.join(filter(None, (f'{name}:', summary, method.paper))))}")
    return "\n".join(lines)


def _datasets(content: Content) -> str:
    from subnetbench.harness.registry import get_dataset

    lines = ["| data set | licence | citation | source |", "| --- | --- | --- | --- |"]
    for name in sorted({group["dataset"] for group in content["groups"]}):
        try:
            known = get_dataset(name)
            words = (name, known.licence, known.citation, known.source)
        except SubnetbenchError:
            words = (name, "not known to this installation", "", "")
        lines.append(f"| {' | '.join(map(escape_markdown, words))} |")
    return "\n".join(lines)
