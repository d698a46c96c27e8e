"""Digests of source: what changes a score changes them, comments and layout do not."""

import sys

import pytest

from subnetbench.harness.core.registry import load_plugin
from subnetbench.harness.data.registry import get_dataset
from subnetbench.harness.method.registry import get_method
from subnetbench.harness.runs import code
from subnetbench.harness.runs.code import read_code

SOURCE = '''"""A method."""
import helper_of_plugin
from subnetbench.methods.dense import Dense


class Rule(Dense):
    """Says so."""

    def keep(self, score):
        return score > helper_of_plugin.LEAST  # the largest
'''
OTHER_LAYOUT = SOURCE.replace('"""Says so."""', '"""Other words."""\n\n    # a comment\n').replace(
    "score > helper_of_plugin.LEAST", "(score >\n            helper_of_plugin.LEAST)"
)


def digest_of(tmp_path, monkeypatch, source, helper="LEAST = 0\n", name="rule.py"):
    folder = tmp_path / "plugin"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(source)
    (folder / "helper_of_plugin.py").write_text(helper)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("helper_of_plugin", None)
    code._module.cache_clear()
    module_name = f"subnetbench_plugin_{folder.name}"
    namespace = {"__name__": module_name}
    module = type(sys)(module_name)
    module.__file__ = str(folder / name)
    monkeypatch.setitem(sys.modules, module_name, module)
    exec(compile(source, str(folder / name), "exec"), namespace)
    return read_code(namespace["Rule"], get_dataset("emoji"))


def test_layout_and_comments_do_not_count(tmp_path, monkeypatch):
    before = digest_of(tmp_path, monkeypatch, SOURCE)
    assert digest_of(tmp_path, monkeypatch, OTHER_LAYOUT) == before


@pytest.mark.parametrize(
    ("source", "helper"),
    [(SOURCE.replace(" > ", " < "), "LEAST = 0\n"), (SOURCE, "LEAST = 1\n")],
    ids=["own module", "imported module"],
)
def test_a_rule_that_is_inverted_counts(tmp_path, monkeypatch, source, helper):
    before, after = digest_of(tmp_path, monkeypatch, SOURCE), digest_of(tmp_path, monkeypatch, source, helper)
    assert (before.method != after.method, before.dataset, before.harness) == (True, after.dataset, after.harness)
    assert before.digest != after.digest


def test_what_a_method_imports_of_the_package_counts():
    modules = read_code(get_method("edge_popup"), get_dataset("emoji")).modules
    assert {"subnetbench.methods.edge_popup", "subnetbench.methods.parts.masks.masked_model"} <= modules.keys()
    assert {"subnetbench.datasets.emoji", "subnetbench.datasets.parts.splits"} <= modules.keys()
    assert {"subnetbench.harness.training.loop", "subnetbench.harness.evaluation.ranking"} <= modules.keys()
    assert not any(name.startswith(("torch", "numpy", "subnetbench.harness.execution")) for name in modules)


@pytest.mark.parametrize(
    ("file", "standard", "library"),
    [
        ("methods/dense.py", "usr/lib/python3.11", False),
        (".venv/lib/python3.11/site-packages/torch/nn.py", "usr/lib/python3.11", True),
        ("env/lib/python3.11/json/decoder.py", "checkout/env/lib/python3.11", True),
        ("env/lib/python3.11/site-packages/torch/nn.py", "checkout/env/lib/python3.11", True),
        ("../site-packages/torch/nn.py", "usr/lib/python3.11", True),
        ("../usr/lib/python3.11/json/decoder.py", "usr/lib/python3.11", True),
        ("../plugins/rule.py", "usr/lib/python3.11", False),
    ],
)
def test_libraries_of_an_environment_inside_the_checkout_do_not_count(tmp_path, monkeypatch, file, standard, library):
    monkeypatch.setattr(code, "_ROOT", tmp_path / "checkout")
    monkeypatch.setattr(code, "_STANDARD", tmp_path / standard)
    assert code._is_library(tmp_path / "checkout" / file) is library


def test_an_installed_package_counts_as_the_program(tmp_path, monkeypatch):
    monkeypatch.setattr(code, "_STANDARD", tmp_path / "lib" / "python3.11")
    monkeypatch.setattr(code, "_ROOT", code._STANDARD / "site-packages" / "subnetbench")
    assert not code._is_library(code._ROOT / "methods" / "dense.py")
    assert code._is_library(code._ROOT.parent / "torch" / "nn.py")


def test_methods_that_share_no_module_do_not_share_changes():
    dense, triplet = (read_code(get_method(name), get_dataset("emoji")) for name in ("dense", "triplet"))
    assert dense.method != triplet.method
    assert (dense.dataset, dense.harness) == (triplet.dataset, triplet.harness)


def test_lists_of_modules_name_what_exists():
    """A module that is renamed must not slip out of what counts, or into it."""
    for name in (*code.DECIDING, *code.NOT_DECIDING, *code._STARTS):
        assert code._locate(name) is not None, name


def test_a_plugin_file_is_found_wherever_it_lies(tmp_path):
    for folder in ("one", "two"):
        path = tmp_path / folder / f"moved_{folder}.py"
        path.parent.mkdir()
        path.write_text(
            "from subnetbench.harness.method import register_method\n"
            "from subnetbench.methods.dense import Dense\n\n\n"
            f"@register_method('moved_{folder}')\nclass Moved(Dense):\n    pass\n"
        )
        load_plugin(path)
    one, two = (read_code(get_method(f"moved_{folder}"), get_dataset("emoji")) for folder in ("one", "two"))
    assert {"moved_one.py", "subnetbench.methods.dense"} <= one.modules.keys()
    assert "moved_two.py" in two.modules
