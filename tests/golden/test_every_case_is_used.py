"""Every golden file is read by at least one test, and a file of an unknown kind is reported."""

import ast
import os
from pathlib import Path

BUNDLED = Path(__file__).parent / "data"


def declared_kinds() -> dict[str, set[str]]:
    """The kinds named in `golden` markers of the tests in this folder, by golden folder."""
    kinds: dict[str, set[str]] = {}
    for path in Path(__file__).parent.glob("test_*.py"):
        module = ast.parse(path.read_text())
        constants = {
            target.id: node.value.value
            for node in module.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.golden":
                folder, *rest = [constants[a.id] if isinstance(a, ast.Name) else ast.literal_eval(a) for a in node.args]
                kinds.setdefault(folder, set()).update(rest)
    return kinds


def test_every_golden_file_is_used_by_a_test():
    root = Path(os.environ.get("SUBNETBENCH_GOLDEN") or BUNDLED)
    kinds = declared_kinds()
    unused = [
        str(path.relative_to(root))
        for path in sorted(root.rglob("*"))
        if path.suffix in {".npz", ".json"}
        and not any(path.stem == kind or path.stem.startswith(kind + "_") for kind in kinds.get(path.parent.name, ()))
    ]
    assert not unused, f"golden files of kinds that no test knows: {unused}"
