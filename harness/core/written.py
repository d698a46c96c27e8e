"""YAML and JSON that people write: one way of reading them, which changes nothing in silence.

YAML is read by the core schema of version 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema): `no`, `on` and `1:30` are
texts, dates are texts, `1e-3` is a number. Beyond it, whole numbers with leading zeros stay texts, so that a folder
`007` keeps its name. In both formats a key that is there twice is an error, as is a file that would grow beyond
`MAX_NODES` values when its aliases are followed.
"""

import functools
import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subnetbench.harness.core.errors import UserError

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 2**24
MAX_NODES = 10**6
_SHORT = 200

_TAG = "tag:yaml.org,2002:"
_RULES = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "merge": r"<<",
}
_COMPILED = {kind: re.compile(rf"(?:{rule})\Z") for kind, rule in _RULES.items()}
# The characters with which YAML begins something else than a plain text.
_NOT_PLAIN = tuple("[]{}\"'&*!|>%@`")


def read_written(path: Path, *, texts: bool = False, most: int = MAX_BYTES) -> Any:
    """The content of a `.json` file, or of a YAML file of any other name; a byte order mark is passed over.

    Args:
        path: A file of at most `most` bytes.
        texts: In YAML every value stays the text that was written, also `no`, `01` and `1e3`; for names of classes.

    Raises:
        UserError: The file cannot be read, is not valid (with the line), or holds a key twice.
    """
    try:
        if not path.is_file() and path.exists():
            raise UserError("is not a regular file", field=str(path))
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", field=str(path)) from None
    if len(data) > most:
        raise UserError(f"is larger than {most:,} bytes", field=str(path))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("is not valid YAML: it is not UTF-8 text", field=str(path)) from None
    if path.suffix == ".json":
        return parse_json(text, str(path))
    return parse_yaml(text, str(path), texts=texts)


def parse_json(text: str, where: str) -> Any:
    """JSON from `text`. Raises `UserError` with `where` for what is not valid or holds a key twice."""

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:  # open: whatever somebody wrote
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise UserError("a key is there twice", field=where, value=twice[:_SHORT])
        return found

    try:
        return json.loads(text, object_pairs_hook=mapping)
    except RecursionError:
        raise UserError("is not valid JSON: it is nested too deeply", field=where) from None
    except ValueError as error:
        raise UserError(f"is not valid JSON: {str(error)[:_SHORT]}", field=where) from None


def parse_yaml(text: str, where: str, *, texts: bool = False) -> Any:
    """The one document in `text`. Raises `UserError` with `where` and the line for what cannot be used."""
    import yaml

    try:
        loader = _loader()(text)
    except yaml.YAMLError as error:  # characters that no YAML file may hold
        raise UserError(f"is not valid YAML: {_in_one_line(error)}", field=where) from None
    loader.texts = texts  # type: ignore[attr-defined]
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, where)
        return loader.construct_document(node)
    except RecursionError:
        raise UserError("is not valid YAML: it is nested too deeply", field=where) from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"is not valid YAML: {_in_one_line(error)}", field=where) from None
    finally:
        loader.dispose()


def parse_value(text: str, where: str) -> Any:
    """A value on a command line: YAML where it begins as a list, a mapping or a quoted text; else as it is written.

    What YAML would cut off (`a #b`) or refuse (`a: b`) in a plain text stays.
    """
    stripped = text.strip()
    if stripped.startswith(_NOT_PLAIN):
        return parse_yaml(stripped, where)
    kind = next((kind for kind in ("null", "bool", "int", "float") if _COMPILED[kind].match(stripped)), None)
    return text if kind is None else parse_yaml(stripped, where)


def _in_one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())[:_SHORT]
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem[:_SHORT]}"


def _check_size(root: "yaml.Node", where: str) -> None:
    """Raise `UserError` when following aliases would make more than `MAX_NODES` values, or never end."""
    sizes: dict[int, int] = {}
    under_way: set[int] = set()

    def size(node: Any) -> int:
        if isinstance(node.value, str):
            return 1
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in under_way:
            raise UserError(f"line {node.start_mark.line + 1}: holds itself", field=where)
        under_way.add(id(node))
        parts = node.value if node.id == "sequence" else [part for pair in node.value for part in pair]
        sizes[id(node)] = total = 1 + sum(map(size, parts))
        if total > MAX_NODES:
            raise UserError(f"holds more than {MAX_NODES:,} values", field=where)
        under_way.discard(id(node))
        return total

    size(root)


@functools.cache
def _loader() -> "type[yaml.SafeLoader]":
    import yaml

    class Loader(yaml.SafeLoader):
        """A safe loader with the rules of this module."""

        texts = False
        yaml_implicit_resolvers = {None: [(_TAG + kind, _COMPILED[kind]) for kind in _RULES]}

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            self._refuse_repeated(node)
            found: dict[Hashable, Any] = super().construct_mapping(node, deep=True)
            return found

        def _refuse_repeated(self, node: yaml.MappingNode) -> None:
            seen: dict[Hashable, int] = {}
            for key, _ in node.value:
                if key.tag == _TAG + "merge":
                    continue
                name = self.construct_object(key, deep=True)
                if not isinstance(name, Hashable):
                    continue
                if name in seen:
                    problem = f"the key {str(name)[:_SHORT]!r} is there twice, first in line {seen[name]}"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen[name] = key.start_mark.line + 1

        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
            if self.texts and isinstance(node, yaml.ScalarNode):
                return self.construct_scalar(node)
            return super().construct_object(node, deep=deep)

        def whole(self, node: yaml.ScalarNode) -> int:
            value = self.construct_scalar(node)
            base = {"0o": 8, "0x": 16}.get(value[:2], 10)
            return int(value[2:] if base != 10 else value, base)

        def real(self, node: yaml.ScalarNode) -> float:
            value = self.construct_scalar(node).lower()
            return float(value.replace(".inf", "inf").replace(".nan", "nan"))

    Loader.add_constructor(_TAG + "int", Loader.whole)
    Loader.add_constructor(_TAG + "float", Loader.real)
    return Loader
