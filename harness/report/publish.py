"""A folder ready to be shared: leaderboard and records as parquet, report, figures, and a card that explains them.

Nothing of a data set is in it, no picture, no weights: drawn figures, names and numbers only. Machines are not named,
logs are left out, and of paths only file names are kept.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

import pyarrow as pa
import yaml

from subnetbench.harness.core.errors import SubnetbenchError, UserError
from subnetbench.harness.core.files import publish, publish_table
from subnetbench.harness.data.registry import get_dataset
from subnetbench.harness.leaderboard import Leaderboard, View, load_published, render, write
from subnetbench.harness.leaderboard.markup import escape_markdown
from subnetbench.harness.leaderboard.published import PublishedValue
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.records.check import ENCODED
from subnetbench.harness.records.item_copies import copy_items
from subnetbench.harness.records.read import RecordSet, read_records
from subnetbench.harness.report import Options, write_page
from subnetbench.harness.report.figures import check_formats, write_figures
from subnetbench.harness.report.runs import Detail
from subnetbench.harness.report.types import ReportContent

_CARD_ROWS = 40


@dataclass(frozen=True)
class Publication:
    """Title and licence of a published folder, as Hugging Face names licences; `where` filters its rows."""

    title: str = "Leaderboard"
    licence: str = "unknown"
    where: str | None = None


class Hub(Protocol):
    """The part of `huggingface_hub.HfApi` that an upload needs."""

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> object: ...

    def upload_folder(self, *, repo_id: str, folder_path: str, repo_type: str, commit_message: str) -> object: ...


def write_publication(
    paths: Path | str | Iterable[Path | str], out: Path | str, publication: Publication | None = None
) -> list[Path]:
    """Write a folder that can be shared: card, report, figures, leaderboard and records as parquet.

    Args:
        paths: Results folders or record files.
        out: The folder, which must be new or empty.
        publication: Title, licence, and which rows.

    Returns:
        Its files.

    Raises:
        UserError: The folder has something in it, no run is recorded, or matplotlib is not installed.
    """
    publication = publication or Publication()
    folder = Path(out)
    formats = check_formats(("pdf", "png"))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("must be a new or empty folder", field="--out", value=str(folder))
    roots = [paths] if isinstance(paths, Path | str) else list(paths)
    published = load_published()
    view = View(where=publication.where)
    options = Options(publication.title, view, published, Detail(private=False))
    content = write_page(roots, folder / "report.html", options)
    records = read_records(roots)
    records.warn()
    copy_items(records, folder / "records.parquet")
    records = _without_machines(records)
    publish_table(records.long(), folder / "records.parquet", overwrite=True, compression="zstd")
    # From the published file, so that what is beside it can be computed from it.
    board = Leaderboard(folder / "records.parquet")
    write(board, folder / "leaderboard.parquet", view)
    write_figures(content, folder / "figures", formats)
    card = card_of(board, content, publication, published)
    publish(folder / "README.md", lambda file: file.write(card.encode()), overwrite=True)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def upload(folder: Path, repository: str, *, private: bool = True, hub: Hub | None = None) -> str:
    """Upload a folder as a Hugging Face data set, which is made if need be; returns its URL.

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


def _without_machines(records: RecordSet) -> RecordSet:
    """The records without names of machines, which are numbered, so that times of several stay apart; without SLURM jobs,
    and without folders in the specs."""
    hosts = records.runs["host"].to_pylist()
    numbers = {host: f"machine {at}" for at, host in enumerate(dict.fromkeys(filter(None, hosts)), start=1)}
    runs = _replace(records.runs, "host", pa.array([numbers.get(host, "") for host in hosts], pa.string()))
    runs = _replace(runs, "slurm_job_id", pa.array([""] * len(runs)))
    specs = {text: _without_folders(text) for text in runs["spec_json"].unique().to_pylist()}
    runs = _replace(runs, "spec_json", pa.array([specs[text] for text in runs["spec_json"].to_pylist()]))
    return RecordSet(runs, records.scores)


def _replace(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values.cast(pa.string()).cast(ENCODED))


def _without_folders(spec_json: str) -> str:
    """A spec whose input files are named without their folders; their digests stay."""
    if '"file"' not in spec_json:
        return spec_json

    def shorten(value: object) -> object:
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


def card_of(
    board: Leaderboard, content: ReportContent, publication: Publication, published: Sequence[PublishedValue] = ()
) -> str:
    """The card (README.md): how the values were measured, on which data under which licences, and what each file is."""
    front = {
        "license": publication.licence,
        "pretty_name": publication.title,
        "tags": ["subnetbench", "benchmark", "leaderboard", "model-compression"],
        "configs": [{"config_name": name, "data_files": f"{name}.parquet"} for name in ("leaderboard", "records")],
    }
    table = render(board, "markdown", View(where=publication.where, limit=_CARD_ROWS), published)
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {escape_markdown(publication.title)}",
        f"{content.counts['finished']} finished runs by {content.program}, put together on "
        f"{content.created[:10]}. Values are means over seeds with 95 % intervals, over what the notes say; "
        "failed, pruned and partial runs are counted, never averaged.",
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
        "- `items/`: outcomes by test item (index, class and cluster of the item, right or not, average precision), where "
        "runs stored them: intervals over test items are computed from them\n"
        "- `report.html`: the same to look at, offline; each run with the command that makes it again\n"
        "- `figures/`: PDF and PNG",
    ]
    return "\n\n".join(parts) + "\n"


def _protocols(content: ReportContent) -> str:
    lines = dict.fromkeys(
        f"- {contest.dataset}, {contest.task}, split {contest.split}: {contest.protocol} "
        f"(data digest `{contest.data_digest}`)"
        for contest in content.contests
    )
    return "\n".join(escape_markdown(line).replace("\\`", "`") for line in lines)


def _methods(content: ReportContent) -> str:
    lines = []
    for name in sorted({row.method for row in content.rows}):
        try:
            method = get_method(name)
        except SubnetbenchError:
            lines.append(f"- {escape_markdown(name)}: not known to this installation")
            continue
        summary = (method.__doc__ or "").strip().split("\n", 1)[0]
        lines.append(f"- {escape_markdown(' '.join(filter(None, (f'{name}:', summary, method.paper))))}")
    return "\n".join(lines)


def _datasets(content: ReportContent) -> str:
    lines = ["| data set | licence | citation | source |", "| --- | --- | --- | --- |"]
    for name in sorted({group.dataset for group in content.groups}):
        try:
            known = get_dataset(name)
            words = (name, known.licence, known.citation, known.source)
        except SubnetbenchError:
            words = (name, "not known to this installation", "", "")
        lines.append(f"| {' | '.join(map(escape_markdown, words))} |")
    return "\n".join(lines)
