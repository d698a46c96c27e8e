"""Named classes that exist: where they come from, and how to get one by name.

Built-in ones are found by file name in a folder of the package; others come from `--plugin FILE` or from an entry
point group. Listing reads names and docstrings from the source without importing it; only `get` imports, and only
what was asked for.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from subnetbench.harness.core.errors import UserError, unknown

T = TypeVar("T")
Registered = TypeVar("Registered", bound=type)

_PACKAGE = Path(__file__).resolve().parents[2]
_plugins: dict[Path, str] = {}


@dataclass(frozen=True)
class Entry:
    """A name in a listing: where it is defined and the first line of what it says about itself."""

    name: str
    summary: str
    origin: str


class Registry(Generic[T]):
    """The classes of one kind by name.

    Args:
        kind: What one is called in messages and in the decorator `register_<kind>`, e.g. `method`.
        folder: Folder of the package with the built-in ones, one file each; also names the entry point group.
    """

    def __init__(self, kind: str, folder: str) -> None:
        self.kind = kind
        self.folder = folder
        self._classes: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[Registered], Registered]:
        """Class decorator: make a class available under `name`.

        Raises:
            UserError: When another file registers the same name; both files are named.
        """

        def decorate(cls: Registered) -> Registered:
            known = self._classes.get(name)
            here, there = _file_of(cls), None if known is None else _file_of(known)
            builtin = self._builtin_file(name)
            if builtin.exists() and here != builtin:
                there = builtin
            if there is not None and there != here:
                raise UserError(f"the {self.kind} {name!r} is registered twice: by {there} and by {here}")
            cls.name = name  # type: ignore[attr-defined]
            self._classes[name] = cls
            return cls

        return decorate

    def get(self, name: str) -> type[T]:
        """The class registered under `name`, imported now if need be.

        Raises:
            UserError: When there is none; the nearest name is suggested.
        """
        if name not in self._classes:
            if self._builtin_file(name).exists() and name.isidentifier():
                importlib.import_module(f"subnetbench.{self.folder}.{name}")
            else:
                for entry_point in self._entry_points:
                    if entry_point.name == name:
                        entry_point.load()
        if name not in self._classes:
            raise unknown(self.kind, name, [entry.name for entry in self.listing()])
        return self._classes[name]

    def listing(self) -> list[Entry]:
        """All names in order, without importing any class."""
        entries = {}
        for path in sorted((_PACKAGE / self.folder).glob("*.py")):
            if not path.stem.startswith("_"):
                entries[path.stem] = Entry(path.stem, _summary(path.read_text()), "built in")
        for path in _plugins:
            for name, summary in _declared(self.kind, path.read_text()):
                entries[name] = Entry(name, summary, str(path))
        for entry_point in self._entry_points:
            origin = f"package {entry_point.dist.name}" if entry_point.dist else "a package"
            entries.setdefault(entry_point.name, Entry(entry_point.name, "", origin))
        return [entries[name] for name in sorted(entries)]

    def _builtin_file(self, name: str) -> Path:
        return _PACKAGE / self.folder / f"{name}.py"

    @cached_property
    def _entry_points(self) -> tuple[EntryPoint, ...]:
        return tuple(entry_points(group=f"subnetbench.{self.folder}"))


def load_plugin(path: Path | str) -> None:
    """Import a file that registers methods or data sets; loading the same file again does nothing.

    Raises:
        UserError: When there is no such file, or importing it fails.
    """
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


def _file_of(cls: type) -> Path:
    return Path(inspect.getfile(cls)).resolve()


def _summary(source: str) -> str:
    """The first line of a module's docstring."""
    text = ast.get_docstring(ast.parse(source)) or ""
    return text.strip().split("\n", 1)[0]


def _declared(kind: str, source: str) -> list[tuple[str, str]]:
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
