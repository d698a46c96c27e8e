"""How two provenances differ: part by part, in words, with what follows from it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Literal

from subnetbench.harness.data.content import DataContent
from subnetbench.harness.runs.provenance import CodeRead, Environment, FilesRead, PartName, Provenance

Effect = Literal["error", "another run", "another row", "note"]
"""What a difference means: data may not change; files make another run; code and numerics another row."""
EFFECTS: dict[PartName, Effect] = {
    "data": "error",
    "files": "another run",
    "code": "another row",
    "numerics": "another row",
    "environment": "note",
}
ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """One thing that differs: which part, what in it, and how it is in the one and in the other."""

    part: PartName
    name: str
    one: str
    other: str

    @property
    def effect(self) -> Effect:
        return EFFECTS[self.part]

    def __str__(self) -> str:
        return f"{self.name}: {self.one} -> {self.other}"


def differences(one: Provenance, other: Provenance) -> list[Difference]:
    """All that differs, in the order of the parts; what one of them does not know is left out (see `unknown`)."""
    if not (one.environment and one.environment.libraries and other.environment and other.environment.libraries):
        # A record holds them in a column of its own.
        one, other = one.brief(), other.brief()
    return [
        Difference(part, name, old, new)
        for part in EFFECTS
        for name, old, new in (
            *_differing(part_as_texts(one, part), part_as_texts(other, part)),
            *(_differing_where_known(one.files, other.files) if part == "files" else ()),
        )
    ]


def unknown(one: Provenance, other: Provenance) -> list[PartName]:
    """The parts that cannot be compared, because one of the two does not know them."""
    return [part for part in EFFECTS if getattr(one, part) is None or getattr(other, part) is None]


def _differing(one: Mapping[str, str] | None, other: Mapping[str, str] | None) -> Iterator[tuple[str, str, str]]:
    if one is None or other is None:
        return
    for name in dict.fromkeys([*one, *other]):
        old, new = one.get(name, ABSENT), other.get(name, ABSENT)
        if old != new:
            yield name, old, new


def _differing_where_known(one: FilesRead | None, other: FilesRead | None) -> Iterator[tuple[str, str, str]]:
    """Installed files that both had, and inputs by what they stand on themselves: their weights differ by seed."""
    if one is None or other is None:
        return
    for name in one.installed.keys() & other.installed.keys():
        yield from _differing({name: one.installed[name]}, {name: other.installed[name]})
    for role in dict.fromkeys([*one.inputs, *other.inputs]):
        old, new = (each.inputs[role].lineage if role in each.inputs else ABSENT for each in (one, other))
        if old and new and old != new:
            yield f"input {role}", old, new


def part_as_texts(provenance: Provenance, part: PartName) -> dict[str, str] | None:
    """A part as texts by name; None where it is not known."""
    value = getattr(provenance, part)
    if value is None:
        return None
    if isinstance(value, DataContent):
        return {name: str(split) for name, split in value.splits.items()}
    if isinstance(value, FilesRead):
        return dict(value.files)
    if isinstance(value, CodeRead):
        resumed = {"code of earlier attempts": ", ".join(value.resumed)} if value.resumed else {}
        return {"method": value.method, "data set": value.dataset, "training and evaluation": value.harness, **resumed}
    if isinstance(value, Environment):
        own = {each.name: str(getattr(value, each.name)) for each in fields(value) if each.name != "libraries"}
        return {**own, **value.libraries}
    return {each.name.replace("_", " "): str(getattr(value, each.name)) for each in fields(value)}
