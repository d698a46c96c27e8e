"""Files that runs read beside their data: with other content it is another run."""

import json
from pathlib import Path
from typing import Annotated

import pytest
import torch

from subnetbench.harness import api
from subnetbench.harness.core.errors import DataError, UserError
from subnetbench.harness.method import MethodConfig, read_file
from subnetbench.harness.method.resolve import resolve
from subnetbench.harness.runs.contents import content_digest
from subnetbench.harness.runs.spec import spec_from_json

open_clip = pytest.importorskip("open_clip")
SHAPE = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def clip(tmp_path):
    """A folder with a tiny CLIP in open_clip's layout; `clip(seed)` writes other weights there."""
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SHAPE, "preprocess_cfg": {"size": 32}}))

    def write(seed):
        torch.manual_seed(seed)
        torch.save(open_clip.CLIP(**SHAPE).state_dict(), folder / "open_clip_pytorch_model.bin")
        return {"image": "clip", "clip_path": str(folder), "clip_library": "open_clip", "epochs": 0}

    return write


def test_swapped_clip_weights_are_not_finished_before(clip, tmp_path):
    common = {"compute": {"device": "cpu"}, "results": tmp_path / "res", "trackers": ["none"]}
    first = api.run("two_tower", "emoji", config=clip(0), **common)
    assert first.status == "finished", first.message
    second = api.run("two_tower", "emoji", config=clip(1), **common)
    assert (second.status, second.id != first.id) == ("finished", True)
    digests = {run.folder.provenance().files.digest for run in (first, second)}
    assert len(digests) == 2
    # The first run's text tower is read from the folder, where another one lies by now.
    with pytest.raises(UserError, match=r"clip_path: .* is not what the run of .* was trained with"):
        api.evaluate(first)
    assert api.run("two_tower", "emoji", config=clip(0), **common).id == first.id
    assert not api.evaluate(first).frame.empty


def test_ids_of_runs_without_files_are_as_before(tmp_path):
    spec = resolve("dense", "emoji")
    assert spec.files == {}
    assert "files" not in spec.model_dump(mode="json")
    assert "files" not in spec.recipe()
    assert spec_from_json(spec.model_dump_json()) == spec


def test_the_content_of_a_named_file_is_part_of_the_spec(clip):
    one = resolve("two_tower", "emoji", config=clip(0))
    assert one == resolve("two_tower", "emoji", config=clip(0))
    two = resolve("two_tower", "emoji", config=clip(1))
    assert one.files.keys() == two.files.keys() == {"clip_path"}
    assert one.run_id != two.run_id
    assert one.config_hash != two.config_hash
    assert spec_from_json(one.model_dump_json()) == one


def test_marked_fields_name_files():
    class Own(MethodConfig):
        words: Annotated[str | None, read_file] = None
        other: str = "x"

    assert Own().files_read() == {}
    assert Own(words="~/words.txt").files_read() == {"words": Path.home() / "words.txt"}


def test_digests_of_files_and_folders(tmp_path):
    file = tmp_path / "folder" / "a"
    file.parent.mkdir()
    file.write_text("one")
    alone, together = content_digest(file), content_digest(file.parent)
    assert (content_digest(file), content_digest(file.parent)) == (alone, together)
    file.write_text("two")
    assert alone != content_digest(file)
    changed = content_digest(file.parent)
    file.rename(file.with_name("b"))
    assert len({together, changed, content_digest(file.parent)}) == 3
    with pytest.raises(DataError, match="cannot be read"):
        content_digest(tmp_path / "nothing")
