"""What a run stands on: data, files, code, numerics, environment. Gathered at its start, compared ever after.

A run's spec says what was asked for; its provenance says what was there. It is stored in the run's folder, its
checkpoint, its model file and its record. A part that is None is unknown, as in all that earlier versions wrote.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self

from subnetbench.harness.core.digests import NO_FILES, code_digest, files_digest
from subnetbench.harness.core.hashing import SHORT_DIGITS, canonical_json, content_hash
from subnetbench.harness.core.numerics import Numerics
from subnetbench.harness.data.content import DataContent

VERSION = 1
NONE = NO_FILES


@dataclass(frozen=True)
class InputContent:
    """A finished run that another one starts from.

    `run` is its id (empty for a weights file), `weights` the digest of its model file, `lineage` what that run itself
    stands on (empty: unknown).
    """

    run: str
    weights: str
    lineage: str = ""


@dataclass(frozen=True)
class FilesRead:
    """Files beside the data by what they are for, as digests of their content; and inputs by role.

    `files` are those that config fields name, `installed` those of libraries that were on the machine.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    installed: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, InputContent] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """One digest of all: the same for runs of several seeds, so that of an input its lineage counts."""
        lineages = {role: given.lineage for role, given in self.inputs.items()}
        return files_digest(self.files, self.installed, lineages)

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        inputs = {role: asdict(given) for role, given in self.inputs.items()}
        return {"files": dict(self.files), "installed": dict(self.installed), "inputs": inputs}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_json` gave. Raises `KeyError`, `TypeError` or `AttributeError` for anything else."""
        names = [each.name for each in fields(InputContent)]
        inputs = {
            role: InputContent(**{name: str(own[name]) for name in names}) for role, own in plain["inputs"].items()
        }
        files, installed = (
            {str(name): str(digest) for name, digest in plain[kind].items()} for kind in ("files", "installed")
        )
        return cls(files, installed, inputs)


@dataclass(frozen=True)
class CodeRead:
    """Digests of the source that decides scores: of the method, of the data set, and of the program itself.

    Each covers the module and those that it imports. `modules` has a digest for each of them; records leave it out.
    `resumed` are the digests of code that an earlier part of the same training ran under.
    """

    method: str
    dataset: str
    harness: str
    modules: Mapping[str, str] = field(default_factory=dict)
    resumed: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """One digest of all three, and of what the run was resumed from."""
        return code_digest(self.method, self.dataset, self.harness, self.resumed)

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        return {**asdict(self), "modules": dict(self.modules), "resumed": list(self.resumed)}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_json` gave. Raises `KeyError`, `TypeError` or `AttributeError` for anything else."""
        own = {name: str(plain[name]) for name in ("method", "dataset", "harness")}
        modules = {str(name): str(digest) for name, digest in plain.get("modules", {}).items()}
        return cls(**own, modules=modules, resumed=tuple(map(str, plain.get("resumed", ()))))


@dataclass(frozen=True)
class Environment:
    """The machine and what is installed on it. `libraries` are versions by name; records hold them in a column."""

    device: str = ""
    cpu: str = ""
    threads: int = 1
    driver: str = ""
    cuda: str = ""
    cudnn: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        return {**asdict(self), "libraries": dict(self.libraries)}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """What `to_json` gave. Raises `KeyError`, `TypeError`, `ValueError` or `AttributeError` for anything else."""
        texts = {name: str(plain[name]) for name in ("device", "cpu", "driver", "cuda", "cudnn")}
        libraries = {str(name): str(version) for name, version in plain.get("libraries", {}).items()}
        return cls(**texts, threads=int(plain["threads"]), libraries=libraries)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a record that speak of provenance; empty: not known."""

    code_digest: str
    files_digest: str
    numerics: str
    provenance_json: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """All parts; None: not known."""

    data: DataContent | None = None
    files: FilesRead | None = None
    code: CodeRead | None = None
    numerics: Numerics | None = None
    environment: Environment | None = None

    @property
    def columns(self) -> Columns:
        """What the columns of a record hold."""
        return Columns(
            code_digest=self.code.digest if self.code else "",
            files_digest=self.files.digest if self.files else "",
            numerics=str(self.numerics) if self.numerics else "",
            provenance_json=canonical_json(self.brief().to_json()),
        )

    @property
    def lineage(self) -> str:
        """One digest of data, files, code and numerics, for runs that start from this one; empty: not all is known."""
        if self.data is None or self.files is None or self.code is None or self.numerics is None:
            return ""
        parts = [self.data.to_json(), self.files.digest, self.code.digest, str(self.numerics)]
        return content_hash(parts, SHORT_DIGITS)

    def brief(self) -> "Provenance":
        """The same without what a record holds elsewhere or need not hold: single modules, and libraries."""
        code = replace(self.code, modules={}) if self.code else None
        environment = replace(self.environment, libraries={}) if self.environment else None
        return replace(self, code=code, environment=environment)

    def to_json(self) -> dict[str, object]:
        """Plain JSON; unknown parts are left out."""
        parts = ((each.name, getattr(self, each.name)) for each in fields(self))
        return {"version": VERSION, **{name: part.to_json() for name, part in parts if part is not None}}

    @classmethod
    def from_json(cls, plain: object) -> Self:
        """What `to_json` gave; a part that cannot be read, as of a later version, is unknown."""
        if not isinstance(plain, Mapping):
            return cls()
        return cls(**{name: _part(kind, plain.get(name)) for name, kind in _PARTS.items()})

    @classmethod
    def from_whole(cls, plain: Mapping[str, Any]) -> Self | None:
        """What `to_json` gave; None where a part that it has cannot be read, or where it has none."""
        found = cls.from_json(plain)
        parts = [name for name in _PARTS if name in plain]
        return found if parts and all(getattr(found, name) is not None for name in parts) else None

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What a record's column `provenance_json` says; anything that is not JSON is unknown."""
        try:
            return cls.from_json(json.loads(text))
        except (ValueError, RecursionError):
            return cls()


_PARTS: dict[str, Any] = {  # open: the classes of the fields of `Provenance`
    "data": DataContent,
    "files": FilesRead,
    "code": CodeRead,
    "numerics": Numerics,
    "environment": Environment,
}
PartName = Literal["data", "files", "code", "numerics", "environment"]


def _part(kind: Any, plain: object) -> Any:
    try:
        return kind.from_json(plain) if isinstance(plain, Mapping) else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
