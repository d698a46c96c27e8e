"""Methods that are edited after runs finished or began."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import subnetbench
from subnetbench.harness.runs import code
from subnetbench.harness.runs.folder import find_runs

PLUGIN = '''"""A rule of one's own."""

from subnetbench.harness.method import register_method
from subnetbench.methods.dense import Dense


@register_method("{name}")
class Own(Dense):
    """Keeps the {word} weights."""

    sign = {sign}
'''


@pytest.fixture
def plugin(tmp_path, request):
    """A plug-in file with a method of a name that no other test uses, written anew with other contents."""
    name = f"own_{abs(hash(request.node.name)) % 10**8}"
    path = tmp_path / "own_rule.py"

    def write(word="largest", sign=1):
        path.write_text(PLUGIN.format(name=name, word=word, sign=sign))
        return ("--plugin", path)

    write()
    write.name = name
    return write


def test_a_plugin_whose_rule_is_inverted_is_not_averaged_with_the_old_one(images, train, program, plugin, tmp_path):
    train(*plugin(), method=plugin.name)
    assert "1 finished before" in train(*plugin(word="best"), method=plugin.name)  # other words, the same rule
    said = train(*plugin(sign=-1), method=plugin.name)
    assert "1 run finished under other code, of own_rule.py" in said
    assert "--rerun" in said
    train(*plugin(), "--seed", "1", method=plugin.name)
    train(*plugin(sign=-1), "--rerun", method=plugin.name)
    records = pd.read_parquet(tmp_path / "res" / "records")
    digests = records.groupby(["seed", "attempt"]).code_digest.first()
    assert digests[0, 1] == digests[1, 1] != digests[0, 2]
    (run,) = [folder.run_id for folder in find_runs(tmp_path / "res") if "-s1-" in folder.run_id]
    said = program(*plugin(sign=-1), "reproduce", run, "--out", "res", "--check", status=1)
    differing = [line for line in said.splitlines() if "DIFFERS" in line]
    assert len(differing) == 1, said
    assert "code of method" in differing[0]


def test_an_edited_method_of_the_package_is_another_digest(tmp_path, monkeypatch):
    """The rule of `edge_popup` is in a module that it imports."""
    from subnetbench.harness.data.registry import get_dataset
    from subnetbench.harness.method.registry import get_method

    before = code.read_code(get_method("edge_popup"), get_dataset("emoji"))
    copy = tmp_path / "subnetbench"
    shutil.copytree(Path(subnetbench.__file__).parent / "methods", copy / "methods")
    masks = copy / "methods" / "parts" / "masks" / "masks.py"
    found = code._locate
    monkeypatch.setattr(
        code, "_locate", lambda name: masks if name == "subnetbench.methods.parts.masks.masks" else found(name)
    )
    assert code.read_code(get_method("edge_popup"), get_dataset("emoji")) == before
    masks.write_text(masks.read_text() + "\n# a remark\n")
    assert code.read_code(get_method("edge_popup"), get_dataset("emoji")) == before
    assert "return score > 0" in masks.read_text()
    masks.write_text(masks.read_text().replace("return score > 0", "return score < 0"))
    after = code.read_code(get_method("edge_popup"), get_dataset("emoji"))
    assert (after.dataset, after.harness) == (before.dataset, before.harness)
    assert after.method != before.method


def test_a_half_finished_run_resumes_under_other_code_only_when_that_is_allowed(images, train, plugin, tmp_path):
    train(*plugin(), method=plugin.name)
    (folder,) = find_runs(tmp_path / "res")
    folder.finished_file.unlink()
    said = train(*plugin(sign=-1), method=plugin.name, status=1)
    assert "would resume under other code, of own_rule.py" in said
    before = folder.provenance().code
    train(*plugin(sign=-1), "--code-changes", "allow", method=plugin.name)
    resumed = folder.provenance().code
    assert resumed.resumed == (before.digest,)
    assert resumed.digest not in (before.digest, replace(resumed, resumed=()).digest)
    records = pd.read_parquet(tmp_path / "res" / "records")
    assert json.loads(records.provenance_json.iloc[-1])["code"]["resumed"] == [before.digest]
