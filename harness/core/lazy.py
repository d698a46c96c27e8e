"""Packages whose public names are imported on first use, so that a listing does not wait for torch."""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazy_exports(package: str, names: list[str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose `__init__` imports `names` under `TYPE_CHECKING` alone.

    That block is what type checkers and editors read; here the same lines say where each name is found, so that
    nothing is listed twice. Raises `ImportError` when a name of `__all__` is not imported there, or the reverse.
    """
    module = sys.modules[package]
    homes = _imports_for_type_checkers(Path(str(module.__file__)).read_text())
    if set(homes) != set(names):
        raise ImportError(f"{package}: __all__ and its imports differ in {', '.join(sorted(set(homes) ^ set(names)))}")

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home, original = homes[name]
        value = getattr(importlib.import_module(home), original)
        setattr(module, name, value)
        return value

    def listing() -> list[str]:
        own = {name for name in vars(module) if name not in ("TYPE_CHECKING", lazy_exports.__name__)}
        return sorted(own | set(homes))

    return get, listing


def _imports_for_type_checkers(source: str) -> dict[str, tuple[str, str]]:
    """The module and the name in it of everything that a source imports under `if TYPE_CHECKING:`."""
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    return {
        alias.asname or alias.name: (str(node.module), alias.name)
        for block in blocks
        if ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
