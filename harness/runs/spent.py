"""What a run spent on its training, and each of the runs that it starts from."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self


@dataclass(frozen=True)
class Spent:
    """One run's share. Numbers are None where they are not known, as for runs of versions that did not count.

    `inputs` are the ids of the runs that it starts from, directly or not. `variants` are the names under which the run
    that starts from this one evaluates its networks.
    """

    run_id: str = ""
    method: str = ""
    network: str = ""
    budget: str = ""
    training_macs: int | None = None
    images_seen: int | None = None
    steps: int | None = None
    train_seconds: float | None = None
    energy_joules: float | None = None
    device: str = ""
    inputs: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """From a model file, which another version may have written: keys that are not known are left out."""
        known = {field.name: plain[field.name] for field in fields(cls) if field.name in plain}
        lists = {name: tuple(known.get(name, ())) for name in ("inputs", "variants")}
        return cls(**{**known, **lists})


@dataclass(frozen=True)
class Ledger:
    """What a run spent itself, and what its inputs and theirs did, each distinct run once."""

    own: Spent
    inputs: tuple[Spent, ...] = ()

    @classmethod
    def of(cls, own: Spent, inputs: "Iterable[Ledger]") -> Self:
        """The ledger of a run that starts from runs with these ledgers."""
        found = {each.run_id: each for ledger in inputs for each in (*ledger.inputs, ledger.own)}
        return cls(replace(own, inputs=tuple(found)), tuple(found.values()))

    @property
    def input_training_macs(self) -> int | None:
        """Multiply-accumulates of the inputs' training; None where one is not known."""
        macs = [each.training_macs for each in self.inputs]
        known = [value for value in macs if value is not None]
        return sum(known) if len(known) == len(macs) else None

    def evaluated(self, origins: Mapping[str, str]) -> Self:
        """The same with the names of the variants that are networks of inputs; `origins` are ids of runs by variant."""
        return replace(
            self,
            inputs=tuple(
                replace(each, variants=tuple(name for name, run_id in origins.items() if run_id == each.run_id))
                for each in self.inputs
            ),
        )

    def to_json(self) -> dict[str, object]:
        """For a model file; `from_json` reads it."""
        return {"own": _plain(self.own), "inputs": [_plain(each) for each in self.inputs]}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Raises `KeyError` or `TypeError` where it is not what `to_json` returned."""
        return cls(Spent.from_json(plain["own"]), tuple(Spent.from_json(each) for each in plain["inputs"]))

    def to_text(self) -> str:
        """For the column `spent_json` of a record."""
        return json.dumps(self.to_json())


def _plain(spent: Spent) -> dict[str, object]:
    return {**asdict(spent), "inputs": list(spent.inputs), "variants": list(spent.variants)}
