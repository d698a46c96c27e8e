"""The report as one HTML file: style, program and content inside, nothing fetched from anywhere.

The content travels as compressed base64, so no text in it can be taken for markup or script, and the page's policy
lets the browser run nothing but the program that was packed with it.
"""

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.files import publish
from subnetbench.harness.report.content import Options, report_content
from subnetbench.harness.report.runs import Detail
from subnetbench.harness.report.types import ReportContent

MAX_BYTES = 9_500_000
_SCRIPTS = ("base.js", "plot.js", "table.js", "figures.js", "overall.js", "studies.js", "detail.js", "main.js")
_LESS = (Detail(points=30, lines=15), Detail(points=0, lines=0))
"""What is shown of single runs where everything would make the page too large, most first."""


def write_page(
    paths: Path | str | Iterable[Path | str], out: Path | str, options: Options | None = None
) -> ReportContent:
    """Write the report of some result folders to a file, and return what it shows.

    Where the page would be larger than `MAX_BYTES`, curves and logs of single runs are shortened or left out, and
    a note says so. Raises `UserError` where no run is recorded, and where the file cannot be written.
    """
    options = options or Options()
    roots = [paths] if isinstance(paths, Path | str) else list(paths)
    content = report_content(roots, options)
    page = render_page(content)
    for less in _LESS:
        if len(page) <= MAX_BYTES:
            break
        content = report_content(roots, replace(options, detail=replace(less, private=options.detail.private)))
        kept = f"{less.points} points of each learning curve and {less.lines} lines of each log"
        note = f"To keep this page small it holds only {kept}; the run folders have everything."
        content = replace(content, notes=[*content.notes, note])
        page = render_page(content)
    out = Path(out)
    if out.is_dir():
        raise UserError("is a folder; name a file", field="--out", value=str(out))
    publish(out, lambda file: file.write(page), overwrite=True)
    return content


def render_page(content: ReportContent) -> bytes:
    """The page of a report's content, in UTF-8."""
    style, script = _asset("page.css"), "\n".join(['"use strict";', *map(_asset, _SCRIPTS)])
    packed = gzip.compress(json.dumps(content.to_json(), separators=(",", ":"), allow_nan=False).encode(), 6, mtime=0)
    policy = f"default-src 'none'; img-src data: blob:; style-src {_source(style)}; script-src {_source(script)}"
    values = {
        "policy": policy,
        "title": html.escape(content.title),
        "style": style,
        "script": script,
        "content": base64.b64encode(packed).decode(),
    }
    # In one pass: what is filled in is never looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _asset("page.html")).encode()


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8").strip()


def _source(text: str) -> str:
    """What a content security policy calls exactly this style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
