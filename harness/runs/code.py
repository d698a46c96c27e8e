"""Digests of the source that decides a run's scores: of the method, of the data set, and of the program itself.

A digest is of a module's syntax tree without positions, comments and texts that stand by themselves (docstrings), and
of those of all modules that it imports, as far as they belong to this package or to a plug-in. What belongs to an
installed library is known by its version instead. Imports are read from the source: one that is made by a computed
name is not seen. The digests are the same under all supported versions of Python.

Of the program count the modules from which training and evaluation start, and what these import, but for
`NOT_DECIDING`: what starts, stores, lists or names runs computes no score.
"""

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from subnetbench.harness.core.hashing import SHORT_DIGITS, content_hash
from subnetbench.harness.runs.provenance import CodeRead

PACKAGE = "subnetbench"
_ROOT = Path(__file__).resolve().parents[2]
_STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
_INSTALLED = {"site-packages", "dist-packages"}

DECIDING = tuple(
    f"{PACKAGE}.harness.{name}" for name in ("core", "data", "distributed", "evaluation", "method", "training")
)
"""Packages of the program whose modules decide scores."""
NOT_DECIDING = frozenset(
    f"{PACKAGE}.harness.{name}"
    for name in (
        *(
            f"core.{name}"
            for name in ("config", "environment", "errors", "files", "hashing", "lazy", "numerics", "paths", "registry")
        ),
        *("data.content", "data.manifest", "data.registry"),
        *("distributed.allocator", "distributed.compute", "distributed.numerics"),
        *("evaluation.cache", "method.registry", "method.resolve"),
        *("training.checkpoints", "training.monitor", "training.trained_run"),
    )
)
"""Modules of these packages that decide none: configs (a spec has every default written out), files, names, checkpoints."""
_STARTS = tuple(f"{PACKAGE}.harness.{name}" for name in ("training.train", "evaluation.protocols", "distributed.world"))


@dataclass(frozen=True)
class _Module:
    """A module's digest and the names of modules that it imports (or names in them)."""

    digest: str
    imports: tuple[str, ...]


def read_code(method: type, dataset: type) -> CodeRead:
    """The digests for the classes of a method and a data set, of the files as they are now.

    A file is read once, and again when its size or time changes; those of the program only once a process, because its
    modules are imported once.
    """
    program = harness_modules()
    own = {kind: _closure([cls.__module__]) for kind, cls in (("method", method), ("dataset", dataset))}
    return CodeRead(
        method=_digest(own["method"]),
        dataset=_digest(own["dataset"]),
        harness=_digest(program),
        modules={**program, **own["method"], **own["dataset"]},
    )


@cache
def harness_modules() -> dict[str, str]:
    """Digests of the program's modules that decide scores, by name."""
    return _closure(_STARTS, program=True)


def _digest(modules: dict[str, str]) -> str:
    return content_hash(modules, SHORT_DIGITS)


def _closure(start: Iterable[str], *, program: bool = False) -> dict[str, str]:
    """The modules that some modules import, themselves included, with their digests.

    With `program` those of the program itself that decide scores, else all others that are not libraries.
    """
    found: dict[str, str] = {}
    todo = list(start)
    own_packages = {name.partition(".")[0] for name in todo} - {PACKAGE}
    while todo:
        name = todo.pop()
        if name in found or not _counts(name, program):
            continue
        path = _locate(name)
        if path is None or (_is_library(path) and name.partition(".")[0] not in own_packages):
            continue
        module = _module(name, path, *_state(path))
        # A file that is loaded by its path has a name that depends on where it lies.
        found[path.name if name.startswith(f"{PACKAGE}_plugin_") else name] = module.digest
        todo += module.imports
    return dict(sorted(found.items()))


def _counts(name: str, program: bool) -> bool:
    of_program = name.startswith(f"{PACKAGE}.harness.")
    if not program:
        return not of_program and name not in (PACKAGE, f"{PACKAGE}.harness")
    return of_program and name.startswith(DECIDING) and name not in NOT_DECIDING


def _locate(name: str) -> Path | None:
    """The source file of a module; None for one that does not exist, or is not written in Python."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        origin = getattr(loaded, "__file__", None)
    else:
        parent, _, last = name.rpartition(".")
        if not parent:
            found = importlib.util.find_spec(name) if name.isidentifier() else None
            origin = None if found is None else found.origin
        else:
            folder = _locate(parent)
            if folder is None or folder.name != "__init__.py":
                return None
            files = (folder.parent / f"{last}.py", folder.parent / last / "__init__.py")
            origin = next((str(file) for file in files if file.is_file()), None)
    path = Path(origin) if origin and origin.endswith(".py") else None
    return path if path is not None and path.is_file() else None


def _is_library(path: Path) -> bool:
    """Whether a file was installed or comes with Python; an environment may lie inside the checkout of this package."""
    resolved = path.resolve()
    if resolved.is_relative_to(_ROOT):
        standard = _STANDARD.is_relative_to(_ROOT) and resolved.is_relative_to(_STANDARD)
        return standard or bool(_INSTALLED & set(resolved.relative_to(_ROOT).parts))
    return resolved.is_relative_to(_STANDARD) or bool(_INSTALLED & set(path.parts))


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


@cache
def _module(name: str, path: Path, size: int, time: int) -> _Module:
    """What a file says; `size` and `time` are its state, so that a changed one is read again."""
    tree = ast.parse(path.read_bytes())
    parts: list[str] = []
    _walk(tree, parts)
    digest = hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:SHORT_DIGITS]
    is_package = path.name == "__init__.py"
    return _Module(digest, tuple(dict.fromkeys(_imports(tree, name, is_package))))


def _walk(node: ast.AST, parts: list[str]) -> None:
    """Append a node and all below it; empty fields are left out, which versions of Python have different ones of."""
    parts.append(type(node).__name__)
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == [] or name in ("ctx", "type_comment", "kind"):
            continue
        parts.append(name)
        if isinstance(value, list):
            parts.append("[")
            for item in value:
                if isinstance(item, ast.AST):
                    if not _is_text(item):
                        _walk(item, parts)
                else:
                    parts.append(repr(item))
            parts.append("]")
        elif isinstance(value, ast.AST):
            _walk(value, parts)
        else:
            parts.append(repr(value))


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is nothing but a text, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _imports(tree: ast.Module, name: str, is_package: bool) -> Iterator[str]:
    """What a module imports, wherever it does, and the packages that it lies in."""
    parents = name.split(".")
    yield from (".".join(parents[:depth]) for depth in range(1, len(parents)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                within = parents[: len(parents) - node.level + is_package]
                base = ".".join([*within, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
