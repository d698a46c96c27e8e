"""How a run is carried out, as far as its scores do not depend on it; and the same as JSON, for plan files of jobs."""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from subnetbench.harness.core.errors import UserError, nearest
from subnetbench.harness.core.paths import default_data_root

if TYPE_CHECKING:
    from subnetbench.harness.training.monitor import PruneDecision

_PATHS = ("data_root", "rendezvous")
_LISTS = ("trackers", "searched")
_OLD_CALLBACK = "subnetbench.harness.tuning.pruning:connect"
"""What plan files of earlier versions meant by `reporting`, whose value is the options."""


@dataclass(frozen=True)
class Callback:
    """A function named by text, so that it can be stored in a plan and imported where the run is.

    Rank 0 of the run calls it once, as `function(options, axis=(budget, protocol, data digest))`; it returns what is
    called with the epochs done and the selection metric after each validation, and says whether the run is pruned.

    Raises:
        UserError: `function` is not of the form `package.module:function`.
    """

    function: str
    options: Mapping[str, Any] = field(default_factory=dict)  # open: each function has its own

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.function):
            raise UserError("names no function", field="callback", value=self.function, allowed="package.module:name")

    def load(self) -> "Callable[..., PruneDecision]":
        """Import the function. Raises `UserError` when there is none of this name."""
        module, _, name = self.function.partition(":")
        try:
            found: Callable[..., PruneDecision] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise UserError(f"cannot be imported: {error}", field="callback", value=self.function) from None
        return found


@dataclass(frozen=True)
class RunSettings:
    """How a run is carried out, as far as its scores do not depend on it."""

    data_root: Path = field(default_factory=default_data_root)
    trackers: tuple[str, ...] = ("tensorboard",)
    sweep: str = ""
    study: str = ""
    trial: int | None = None
    tuned: bool = False
    search_cost: Mapping[str, float] = field(default_factory=dict)
    """What the search that chose the config cost, by metric; recorded beside the scores."""
    searched: tuple[str, ...] = ()
    """Config fields that the search of this run may choose, beside those that its method brings a space for."""
    split: str = "test"
    """The split that is scored after training. Beside `test` the validation split is scored too; trials of a search
    are scored on `validation` alone and never touch the test split."""
    callback: Callback | None = None
    """Receives the validations, and may prune the run."""
    rendezvous: Path | None = None
    """File by which the processes of a run find each other, where its launcher gives one."""
    plugins: tuple[Path, ...] = ()
    items: bool = True
    """The outcome of every test item is kept, for intervals and tests over items; trials of a search never keep it."""
    code_changes: Literal["refuse", "allow"] = "refuse"
    """Whether a run may continue under other code than it began with."""

    def to_json(self) -> dict[str, Any]:  # open: plain JSON
        """The settings as plain JSON, which `from_json` reads."""
        plain = {**asdict(self), "search_cost": dict(self.search_cost)}
        plain |= {name: list(getattr(self, name)) for name in _LISTS}
        plain |= {name: None if plain[name] is None else str(plain[name]) for name in _PATHS}
        return {**plain, "plugins": [str(path) for path in self.plugins]}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Settings from `to_json`, also of earlier versions; what is left out has its default.

        Raises:
            UserError: a field does not exist or has a value of the wrong type; the message names it.
        """
        values = dict(plain)
        if "reporting" in values:
            options = values.pop("reporting")
            values["callback"] = None if options is None else {"function": _OLD_CALLBACK, "options": options}
        _check(values)
        for name in _PATHS:
            if values.get(name) is not None:
                values[name] = Path(values[name])
        if values.get("callback") is not None:
            values["callback"] = Callback(**values["callback"])
        values |= {name: tuple(values[name]) for name in _LISTS if name in values}
        if "plugins" in values:
            values["plugins"] = tuple(map(Path, values["plugins"]))
        return cls(**values)


_TYPES: dict[str, tuple[type, ...]] = {
    "data_root": (str,),
    "trackers": (list, tuple),
    "sweep": (str,),
    "study": (str,),
    "trial": (int, type(None)),
    "tuned": (bool,),
    "search_cost": (dict,),
    "searched": (list, tuple),
    "split": (str,),
    "callback": (dict, type(None)),
    "rendezvous": (str, type(None)),
    "plugins": (list, tuple),
    "items": (bool,),
    "code_changes": (str,),
}


def _check(values: Mapping[str, object]) -> None:
    known = [each.name for each in fields(RunSettings)]
    for name, value in values.items():
        if name not in known:
            guess = nearest(name, known)
            hint = f"; did you mean {guess!r}?" if guess else ""
            raise UserError(f"there is no such setting{hint}", field=f"settings.{name}", allowed=", ".join(known))
        if not isinstance(value, _TYPES[name]):
            raise UserError("is of the wrong type", field=f"settings.{name}", value=value)
    callback = values.get("callback")
    if isinstance(callback, Mapping) and not {"function"} <= callback.keys() <= {"function", "options"}:
        raise UserError("has other fields than function and options", field="settings.callback", value=callback)
