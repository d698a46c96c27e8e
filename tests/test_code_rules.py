"""Rules of the code that a reader relies on: open values say why they are open, modules and functions stay short."""

import ast
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = [f for d in ("harness", "methods", "datasets") for f in sorted((ROOT / d).rglob("*.py"))]
OPEN = "dict[str, Any]"


def test_open_dictionaries_are_few_and_say_why():
    """`dict[str, Any]` stands for content that is truly open, as a user's config before it is parsed."""
    uses, silent = 0, []
    for file in FILES:
        lines = file.read_text().splitlines()
        for number, line in enumerate(lines, start=1):
            if OPEN not in line:
                continue
            uses += line.count(OPEN)
            around = lines[max(number - 2, 0)], line, lines[min(number, len(lines) - 1)]
            if not any("open" in text.lower() and ("#" in text or '"""' in text) for text in around):
                silent.append(f"{file.relative_to(ROOT)}:{number}")
    assert uses <= 60
    assert not silent, f"these do not say why they are open: {silent}"


def test_modules_and_functions_are_short():
    """Modules can be read at one sitting; of functions above 50 lines there were eleven, and no more may come."""
    lengths = {file: len(file.read_text().splitlines()) for file in FILES}
    assert {str(file): length for file, length in lengths.items() if length > 350} == {}
    assert statistics.median(lengths.values()) <= 120
    functions = {
        f"{file.relative_to(ROOT)}:{node.name}": node.end_lineno - node.lineno + 1
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len([name for name, length in functions.items() if length > 50]) <= 11
