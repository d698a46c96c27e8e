"""Which methods and data sets exist, where they come from, and how to get one by name.

Built-in ones are found by file name in `methods/` and `datasets/`; others come from `--plugin FILE` or from the
entry point groups `subnetbench.methods` and `subnetbench.datasets`. Listing reads names and docstrings from the
source without importing it; only `get_method` and `get_dataset` import, and only what was asked for.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from subnetbench.harness.errors import UserError, unknown

if TYPE_CHECKING:
    from subnetbench.harness.data import Dataset
    from subnetbench.harness.method import Method

Kind = Literal["method", "dataset"]
T = TypeVar("T", bound=type)

_PACKAGE = Path(__file__).resolve().parent.parent
_FOLDERS: dict[Kind, str] = {"method": "methods", "dataset": "datasets"}
_classes: dict[Kind, dict[str, type]] = {"method": {}, "dataset": {}}
_plugins: dict[Path, str] = {}


@dataclass(frozen=True)
class Entry:
    """A name in a listing: where it is defined and the first line of what it says about itself."""

    name: str
    summary: str
    origin: str


def register_method(name: str) -> Callable[[T], T]:
    """Class decorator: make a `Method` subclass available under `name`."""
    return _register("method", name)


def register_dataset(name: str) -> Callable[[T], T]:
    """Class decorator: make a `Dataset` subclass available under `name`."""
    return _register("dataset", name)


def _register(kind: Kind, name: str) -> Callable[[T], T]:
    def decorate(cls: T) -> T:
        known = _classes[kind].get(name)
        here, there = _file_of(cls), None if known is None else _file_of(known)
        builtin = _PACKAGE / _FOLDERS[kind] / f"{name}.py"
        if builtin.exists() and here != builtin:
            there = builtin
        if there is not None and there != here:
            raise UserError(f"the {kind} {name!r} is registered twice: by {there} and by {here}")
        cls.name = name  # type: ignore[attr-defined]
        _classes[kind][name] = cls
        return cls

    return decorate


def _file_of(cls: type) -> Path:
    return Path(inspect.getfile(cls)).resolve()


def get_method(name: str) -> "type[Method]":
    """The class of a method. Raises `UserError` with the nearest name when there is none."""
    return _get("method", name)


def get_dataset(name: str) -> "type[Dataset]":
    """The class of a data set. Raises `UserError` with the nearest name when there is none."""
    return _get("dataset", name)


def _get(kind: Kind, name: str) -> Any:
    if name not in _classes[kind]:
        if (_PACKAGE / _FOLDERS[kind] / f"{name}.py").exists() and name.isidentifier():
            importlib.import_module(f"subnetbench.{_FOLDERS[kind]}.{name}")
        else:
            for entry_point in _entry_points(kind):
                if entry_point.name == name:
                    entry_point.load()
    if name not in _classes[kind]:
        raise unknown(kind, name, [entry.name for entry in listing(kind)])
    return _classes[kind][name]


def listing(kind: Kind) -> list[Entry]:
    """All methods or data sets by name, without importing any of them."""
    entries = {}
    for path in sorted((_PACKAGE / _FOLDERS[kind]).glob("*.py")):
        if not path.stem.startswith("_"):
            entries[path.stem] = Entry(path.stem, _summary(path.read_text()), "built in")
    for path in _plugins:
        for name, summary in _declared(kind, path.read_text()):
            entries[name] = Entry(name, summary, str(path))
    for entry_point in _entry_points(kind):
        entries.setdefault(entry_point.name, Entry(entry_point.name, "", f"package {entry_point.dist.name}"))
    return [entries[name] for name in sorted(entries)]


def load_plugin(path: Path | str) -> None:
    """Import a file that registers methods or data sets; loading the same file again does nothing."""
    path = Path(path).resolve()
    if path in _plugins:
        return
    if not path.is_file():
        raise UserError("there is no such file", field="--plugin", value=str(path))
    module_name = f"subnetbench_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    module_spec = importlib.util.spec_from_file_location(module_name, path)
    if module_spec is None or module_spec.loader is None:
        raise UserError("not a Python file", field="--plugin", value=str(path))
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module
    try:
        module_spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:
        del sys.modules[module_name]
        raise UserError(f"cannot be imported: {type(error).__name__}: {error}", field=f"--plugin {path}") from error
    _plugins[path] = module_name


def loaded_plugins() -> list[Path]:
    """The plug-in files loaded in this process, in order; child processes load the same ones."""
    return list(_plugins)


def _summary(source: str) -> str:
    """The first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(source)) or ""
    return text.strip().split("\n", 1)[0]


def _declared(kind: Kind, source: str) -> list[tuple[str, str]]:
    """Names registered in a source file, each with the first line of its class's docstring."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func).endswith(f"register_{kind}"):
                summary = (ast.get_docstring(node) or "").split("\n", 1)[0]
                found.append((ast.literal_eval(decorator.args[0]), summary))
    return found


@cache
def _entry_points(kind: Kind) -> tuple[Any, ...]:
    from importlib.metadata import entry_points

    return tuple(entry_points(group=f"subnetbench.{_FOLDERS[kind]}"))
