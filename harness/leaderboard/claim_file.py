"""A file of claims: statements about results that records must bear out, as YAML.

name: readme
results: [results/claims]            # relative to this file; the command line wins
confidence: 0.95                     # 1 - level of all claims of the file together
claims:
  - edge_popup > random_mask on top1, emoji
  - claim: aslp > supermask + 0.02 on top1, fashion_mnist
    says: the sentence that it stands for
    where: config.sparsity == 0.8    # both sides; `a` and `b` filter the left and the right one
    effect: 0.03                     # the true difference beyond the margin for which power is reported
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from subnetbench.harness.core.config import Config
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.core.metrics import parse_metric
from subnetbench.harness.core.written import read_written
from subnetbench.harness.leaderboard.matching import ALLOWABLE

MAX_BYTES = 2**20
MAX_CLAIMS = 500
TRIVIAL = "trivial"
FORMS = (
    "METHOD > METHOD, METHOD > METHOD + 0.02, METHOD - METHOD > 0.02, METHOD == METHOD within 0.01, METHOD > 0.8, "
    "METHOD > trivial (or with <), each followed by: on METRIC, DATASET"
)
Relation = Literal[">", "<", "=="]
_TERM = r"[A-Za-z_][\w.]*(?:\[[^\[\]]*\])?"
_NUMBER = r"-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_STATEMENT = re.compile(
    rf"\s*(?P<left>{_TERM})(?:\s*-\s*(?P<minus>{_TERM}))?\s*(?P<relation>>=|<=|==|=|>|<)\s*"
    rf"(?P<right>{_NUMBER}|{_TERM})(?:\s*(?P<sign>[+-])\s*(?P<margin>{_NUMBER}))?(?:\s+within\s+(?P<within>{_NUMBER}))?"
    r"\s+on\s+(?P<metric>[\w.]+)\s*,\s*(?P<dataset>[\w.-]+)\s*"
)


@dataclass(frozen=True)
class Term:
    """One side of a claim: a method, and the variant (in retrieval also of the gallery) if it has several."""

    method: str
    variant: str = ""
    gallery_variant: str = ""

    @classmethod
    def of(cls, text: str) -> "Term":
        """`prunnet[capacity_0.2 -> dense]`: queries of one variant in the gallery of another."""
        method, _, rest = text.rstrip("]").partition("[")
        variant, _, gallery = rest.partition("->")
        return cls(method, variant.strip(), gallery.strip())


@dataclass(frozen=True)
class Statement:
    """`left - right` `relation` `threshold`, or `left` alone where `right` is None; `==` means within `within` of it."""

    left: Term
    relation: Relation
    right: Term | None
    threshold: float
    within: float
    metric: str
    dataset: str


def parse_statement(text: str) -> Statement:
    """The statement of a claim. Raises `ValueError` in words."""
    found = _STATEMENT.fullmatch(text)
    if found is None:
        raise ValueError(f"is no statement of a known form: {FORMS}")
    relation = found["relation"]
    if relation in (">=", "<="):
        raise ValueError(f"{relation} cannot be tested; say with a margin how much is tolerated, e.g. a > b - 0.01")
    equal = relation in ("==", "=")
    if equal != (found["within"] is not None):
        raise ValueError("== needs `within NUMBER`, and only == has it: equality is shown within a tolerance")
    within = float(found["within"] or 0)
    if equal and within <= 0:
        raise ValueError("the tolerance after `within` must be positive")
    number = re.fullmatch(_NUMBER, found["right"])
    if found["minus"] and (not number or found["sign"]):
        raise ValueError("a difference of methods is compared with a number, e.g. a - b > 0.02")
    if number and found["sign"]:
        raise ValueError("write the sum as one number")
    try:
        parse_metric(found["metric"])
    except UserError as error:
        raise ValueError(str(error)) from None
    right = Term.of(found["minus"]) if found["minus"] else None if number else Term.of(found["right"])
    threshold = (
        float(found["right"]) if number else float(f"{found['sign'] or ''}{found['margin'] or 0}".replace("--", ""))
    )
    if not isfinite(threshold) or not isfinite(within):
        raise ValueError("numbers must be finite")
    return Statement(
        left=Term.of(found["left"]),
        relation="==" if equal else ">" if relation == ">" else "<",
        right=right,
        threshold=threshold,
        within=within,
        metric=found["metric"],
        dataset=found["dataset"],
    )


class Claim(Config):
    """One claim as it is written; a text alone is its `claim`."""

    claim: Annotated[str, Field(description="the statement, e.g. aslp > supermask + 0.02 on top1, fashion_mnist")]
    says: Annotated[str, Field(description="the sentence that it stands for")] = ""
    where: Annotated[str | None, Field(description="filter of rows of both sides, as `--where`")] = None
    a: Annotated[str | None, Field(description="filter of rows of the left side")] = None
    b: Annotated[str | None, Field(description="filter of rows of the right side")] = None
    split: Annotated[Literal["test", "validation", "train"], Field(description="the split that was scored")] = "test"
    match: Annotated[list[str], Field(description="it must hold for each pair of rows that agree in these")] = Field(
        default_factory=list
    )
    across: Annotated[list[str], Field(description="columns in which the two sides may differ")] = Field(
        default_factory=list
    )
    effect: Annotated[
        float | None, Field(gt=0, description="true difference beyond the margin for which power is reported")
    ] = None

    @field_validator("claim")
    @classmethod
    def _states(cls, text: str) -> str:
        parse_statement(text)
        return text

    @field_validator("across")
    @classmethod
    def _may_differ(cls, names: Sequence[str]) -> Sequence[str]:
        if strange := sorted(set(names) - set(ALLOWABLE)):
            raise ValueError(f"rows are never compared across {strange[0]!r}; allowed: {', '.join(ALLOWABLE)}")
        return names

    @property
    def statement(self) -> Statement:
        return parse_statement(self.claim)


class ClaimFile(Config):
    """A file of claims as written."""

    name: str = ""
    description: str = ""
    results: Annotated[list[str], Field(description="results folders or record files, relative to the file")] = Field(
        default_factory=list
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1, description="1 - level of all claims together")] = 0.95
    interval: Annotated[
        Literal["joint", "seeds"], Field(description="joint: over test items too, where outcomes by item are stored")
    ] = "joint"
    claims: Annotated[list[Claim], Field(min_length=1, max_length=MAX_CLAIMS)]


@dataclass(frozen=True)
class Claims:
    """A file of claims with the line in which each begins."""

    path: Path
    content: ClaimFile
    lines: tuple[int, ...]


def read_claims(path: Path | str) -> Claims:
    """Read a file of claims. Raises `UserError` naming the file, the line and the field of the first fault."""
    path = Path(path)
    written = read_written(path, most=MAX_BYTES)
    if not isinstance(written, dict):
        raise UserError("is not a mapping with `claims`", field=str(path))
    lines = _lines(path)
    entries = written.get("claims")
    entries = entries if isinstance(entries, list) else []
    for at, entry in enumerate(entries):
        plain = {"claim": entry} if isinstance(entry, str) else entry
        line = lines[at] if at < len(lines) else 0
        where = f"{path} line {line}: claims[{at}]"
        if not isinstance(plain, dict):
            raise UserError("is neither a statement nor a mapping", field=where, value=entry)
        entries[at] = Claim.parse(plain, where=where)
    return Claims(path, ClaimFile.parse(written, where=str(path)), lines)


def _lines(path: Path) -> tuple[int, ...]:
    """The line, counted from 1, in which each claim of a valid file begins."""
    import yaml

    root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == "claims" and isinstance(value, yaml.SequenceNode):
            return tuple(item.start_mark.line + 1 for item in value.value)
    return ()
