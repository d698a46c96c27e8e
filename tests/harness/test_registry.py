import pytest

from subnetbench.harness.core import registry
from subnetbench.harness.core.errors import UserError
from subnetbench.harness.data.registry import DATASETS
from subnetbench.harness.method.registry import METHODS

PLUGIN = '''
"""A plug-in."""
from subnetbench.harness.method import register_method
from subnetbench.methods.dense import Dense

@register_method("{name}")
class Mine(Dense):
    """What it is.

    More.
    """
'''


@pytest.fixture(autouse=True)
def forget_plugins(monkeypatch):
    for name in ("dense", "edge_popup", "triplet"):
        METHODS.get(name)
    DATASETS.get("emoji")
    monkeypatch.setattr(registry, "_plugins", {})
    for each in (METHODS, DATASETS):
        monkeypatch.setattr(each, "_classes", dict(each._classes))


def write(path, name):
    path.write_text(PLUGIN.format(name=name))
    return path


def test_builtin_methods_are_listed_with_their_first_docstring_line():
    entries = {entry.name: entry.summary for entry in METHODS.listing()}
    assert entries["dense"].startswith("Ordinary training of all weights")
    assert all(entries.values())


def test_a_name_is_imported_only_when_asked_for():
    assert METHODS.get("dense").name == "dense"
    assert DATASETS.get("emoji").name == "emoji"


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="did you mean 'edge_popup'"):
        METHODS.get("edgepopup")


def test_plugin_is_listed_with_its_file_and_loaded_once(tmp_path):
    path = write(tmp_path / "mine.py", "mine")
    registry.load_plugin(path)
    registry.load_plugin(path)
    entry = next(entry for entry in METHODS.listing() if entry.name == "mine")
    assert (entry.summary, entry.origin) == ("What it is.", str(path))
    assert METHODS.get("mine").__doc__.startswith("What it is.")


def test_same_name_from_two_files_is_refused_and_both_are_named(tmp_path):
    first, second = write(tmp_path / "one.py", "mine"), write(tmp_path / "two.py", "mine")
    registry.load_plugin(first)
    with pytest.raises(UserError) as caught:
        registry.load_plugin(second)
    assert "one.py" in str(caught.value)
    assert "two.py" in str(caught.value)


def test_a_plugin_cannot_replace_a_builtin_method(tmp_path):
    with pytest.raises(UserError, match=r"'dense' is registered twice: by .*dense\.py and by .*thief\.py"):
        registry.load_plugin(write(tmp_path / "thief.py", "dense"))


def test_plugin_that_does_not_import_is_one_message(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("import no_such_module_anywhere")
    with pytest.raises(UserError, match="cannot be imported: ModuleNotFoundError"):
        registry.load_plugin(path)
    with pytest.raises(UserError, match="there is no such file"):
        registry.load_plugin(tmp_path / "absent.py")
