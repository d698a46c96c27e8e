"""A comparison as a gate for continuous integration: what fails it by policy, as Markdown, JUnit XML and an exit status."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from subnetbench.harness.core.files import write_atomically
from subnetbench.harness.leaderboard.compare import Differences
from subnetbench.harness.leaderboard.compare_formats import render
from subnetbench.harness.leaderboard.document import number
from subnetbench.harness.leaderboard.markup import clean, escape_markdown

_MOST = 50
"""Cases that the Markdown summary lists before it points to the table."""


@dataclass(frozen=True)
class Case:
    """One thing that a comparison tests: a row with a metric, or a row that is missing.

    `failed` names the words of the policy that it breaks, joined by commas; empty where it breaks none. A case that the
    seeds could not decide is `undecided`.
    """

    dataset: str
    method: str
    name: str
    message: str
    failed: str
    undecided: bool = False

    @property
    def status(self) -> Literal["failed", "undecided", "passed"]:
        return "failed" if self.failed else "undecided" if self.undecided else "passed"


def cases(differences: Differences) -> Iterator[Case]:
    """Everything that was compared, and everything that is missing, judged by `Differences.fail_on`."""
    broken = differences.broken()
    rows = differences.rows
    names = [kind for kind in differences.fail_on if kind in broken]
    for at, row in enumerate(rows.to_dict("records")):
        failed = [kind for kind in names if broken[kind][at]]
        yield Case(
            *_names(row),
            message=(
                f"{row['verdict']}: {number(row['a'])} -> {number(row['b'])}, difference {row['difference']:+.4g}"
                f"{_interval(row)}{_p(row['p_corrected'])}, {row['pairs']} pairs"
            ),
            failed=", ".join(failed),
            undecided=row["verdict"] == "undecidable",
        )
    for row in differences.failed_beside.to_dict("records") if "failed" in differences.fail_on else ():
        words = f"{row['failed']} {'run' if row['failed'] == 1 else 'runs'} failed in b"
        yield Case(*_names({**row, "metric": "failed runs"}), message=words, failed="failed")
    missing = "" if differences.allow_missing or "missing" not in differences.fail_on else "missing"
    for row in differences.missing.to_dict("records"):
        dataset, method, name = _names({**row, "metric": row["metric"] or "all metrics"})
        yield Case(dataset, method, f"{name} (missing)", str(row["reason"]), missing, undecided=True)


def _names(row: dict[object, object] | dict[str, object]) -> tuple[str, str, str]:
    plain = {str(name): str(value) for name, value in row.items() if value not in (None, "") and value == value}
    own = [plain[name] for name in ("network", "variant", "gallery_variant", "config") if name in plain]
    words = [*own, *(["against"] if "method_b" in plain else [])]
    words += [
        plain[f"{n}_b"] for n in ("method", "network", "variant", "gallery_variant", "config") if f"{n}_b" in plain
    ]
    split = "" if plain.get("split", "test") == "test" else f" on {plain['split']}"
    return plain["dataset"], plain["method"], f"{plain['metric']}{split}: {' '.join(words)}".removesuffix(": ")


def _p(corrected: float) -> str:
    return "" if np.isnan(corrected) else f", p {corrected:.3g} corrected"


def _interval(row: dict[object, object] | dict[str, object]) -> str:
    low, high = float(str(row["low"])), float(str(row["high"]))
    return "" if np.isnan(low) else f" [{low:+.4g}, {high:+.4g}]"


def markdown_summary(differences: Differences) -> str:
    """What fails first, then every difference, folded away; for the summary of a job or a comment."""
    found = list(cases(differences))
    failed = [case for case in found if case.failed]
    head = "failed" if differences.exit_status else "passed"
    undecided = sum(case.status == "undecided" for case in found)
    lines = [
        f"## subnetbench compare: {head}",
        "",
        f"{len(found):,} cases: {len(failed):,} failed, {undecided:,} undecided, "
        f"{len(found) - len(failed) - undecided:,} passed. Fails on: {', '.join(differences.fail_on)}.",
    ]
    if failed:
        lines += ["", "| fails by | data set | method | case | what |", "| --- | --- | --- | --- | --- |"]
        cells = [(c.failed, c.dataset, c.method, c.name, c.message) for c in failed[:_MOST]]
        lines += [f"| {' | '.join(map(escape_markdown, line))} |" for line in cells]
        if len(failed) > _MOST:
            lines += ["", f"and {len(failed) - _MOST:,} more, below"]
    lines += ["", "<details><summary>All differences</summary>", "", render(differences, "markdown").strip()]
    return "\n".join([*lines, "", "</details>", ""])


def junit(differences: Differences) -> str:
    """The cases as JUnit XML: failures by policy; what could not be decided, and does not fail, is skipped."""
    found = pd.DataFrame(list(cases(differences)), columns=list(Case.__dataclass_fields__))
    found["status"] = [case.status for case in cases(differences)]
    root = ElementTree.Element("testsuites", {"name": "subnetbench compare", **_counts(found)})
    for dataset, part in found.groupby("dataset", sort=True):
        suite = ElementTree.SubElement(root, "testsuite", {"name": clean(dataset), **_counts(part)})
        for case in part.itertuples():
            names = {"classname": f"{clean(dataset)}.{clean(case.method)}", "name": clean(case.name), "time": "0"}
            element = ElementTree.SubElement(suite, "testcase", names)
            if case.status == "failed":
                why = {"type": clean(case.failed), "message": clean(case.message)}
                ElementTree.SubElement(element, "failure", why).text = clean(case.message)
            elif case.status == "undecided":
                ElementTree.SubElement(element, "skipped", {"message": clean(case.message)})
            else:
                ElementTree.SubElement(element, "system-out").text = clean(case.message)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _counts(part: pd.DataFrame) -> dict[str, str]:
    status = part["status"]
    numbers = {"tests": len(part), "failures": (status == "failed").sum(), "skipped": (status == "undecided").sum()}
    return {name: str(int(value)) for name, value in numbers.items()} | {"errors": "0", "time": "0"}


def write_gate(differences: Differences, markdown: Path | str | None, junit_file: Path | str | None) -> None:
    """Write the summary and the XML where they are wanted, each whole or not at all."""
    for path, text in ((markdown, markdown_summary), (junit_file, junit)):
        if path is not None:
            write_atomically(Path(path), text(differences))
