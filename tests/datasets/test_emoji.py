"""The embedded cut of the emoji set: what it holds, how it is split, what goes wrong."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from subnetbench.datasets.emoji import CUT, Emoji
from subnetbench.datasets.parts.emoji.archive import EmojiArchive
from subnetbench.datasets.parts.emoji.build import concept_key
from subnetbench.datasets.parts.emoji.sources import CUT_VENDORS
from subnetbench.harness.core.errors import DataError, UserError
from subnetbench.harness.core.tasks import Task
from subnetbench.harness.data.duplicates import most_similar
from subnetbench.harness.data.splits import TaskData


def load(task: Task, root: Path = Path("nowhere"), **options: object) -> TaskData:
    return Emoji(Emoji.Config(**options), root).load(task)


def splits_of(data: TaskData) -> tuple:
    return data.train, data.validation, data.test


def test_the_file_needs_no_pickle_and_holds_only_permissive_drawings() -> None:
    with np.load(CUT, allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "iuU" for name in arrays.files)
        assert set(arrays["vendors"]) == set(CUT_VENDORS)
        assert not any("-SA-" in line for line in arrays["provenance"])
    archive = EmojiArchive.load(CUT)
    assert archive.images.shape == (2000, 3, 32, 32)
    drawn = np.zeros((400, 5), int)
    np.add.at(drawn, (archive.concept, archive.vendor), 1)
    assert (drawn == 1).all()  # every concept once by every vendor
    assert len({image.tobytes() for image in archive.images}) > 1990
    assert len(set(archive.hexcodes)) == len(set(archive.labels)) == len(set(archive.captions)) == 400


def test_no_concept_is_in_two_splits() -> None:
    archive = EmojiArchive.load(CUT)
    keys = [{concept_key(str(code)) for code in archive.hexcodes[archive.split == number]} for number in range(3)]
    assert [int((archive.split == number).sum()) for number in range(3)] == [200, 40, 160]
    assert all(one.isdisjoint(other) for one, other in combinations(keys, 2))


def test_retrieval_has_five_drawings_of_each_unseen_class() -> None:
    data = load("retrieval")
    names = [set(split.classes) for split in splits_of(data)]
    assert [len(each) for each in names] == [200, 40, 160]
    assert all(one.isdisjoint(other) for one, other in combinations(names, 2))
    for split in splits_of(data):
        assert (np.bincount(split.labels) == 5).all()
        assert split.labels.dtype == np.int64
        assert split.gallery is None
    assert (data.image_size, data.channels, data.num_classes) == (32, 3, 200)


@pytest.mark.parametrize("labels", ["groups", "subgroups"])
def test_classification_shares_its_classes_and_can_learn_each(labels: str) -> None:
    data = load("classification", labels=labels)
    assert data.train.classes == data.validation.classes == data.test.classes
    assert (np.bincount(data.train.labels, minlength=data.num_classes) > 0).all()
    assert data.test.labels.max() < data.num_classes
    if labels == "groups":
        assert [len(split) for split in splits_of(data)] == [1000, 200, 800]
        assert len(set(data.test.labels)) == data.num_classes == 8
    assert (data.test.captions, data.validation.captions) == (None, None)


def test_captions_name_the_concept_of_each_image() -> None:
    data = load("text_image")
    for split in splits_of(data):
        assert split.captions is not None
        for label, captions in zip(split.labels, split.captions, strict=True):
            assert captions[0].split(":")[0] == split.classes[label].split(":")[0]
        assert len(set(split.captions)) == split.num_classes


def test_loading_twice_gives_the_same_and_nothing_is_augmented() -> None:
    one, other = load("retrieval"), load("retrieval")
    assert one.digest == other.digest
    archive = EmojiArchive.load(CUT)
    split_of = archive.split[archive.concept]
    for number, (split, again) in enumerate(zip(splits_of(one), splits_of(other), strict=True)):
        assert split.images.tensor is not None
        assert torch.equal(split.images.tensor, torch.from_numpy(archive.images[split_of == number]))
        assert torch.equal(split.images.tensor, again.images.tensor)


def test_digest_tells_tasks_options_and_draws_apart() -> None:
    digests = [load(task).digest for task in Emoji.tasks]
    digests += [
        load("classification", labels="subgroups").digest,
        load("retrieval", vendors=["noto", "twemoji"]).digest,
    ]
    digests += [load("classification", train_size=n, split_seed=s).digest for n, s in ((100, 0), (100, 1), (101, 0))]
    assert len(set(digests)) == len(digests)


def test_mean_and_std_are_those_of_the_training_pixels() -> None:
    data = load("retrieval")
    pixels = data.train.images.tensor.double() / 255
    np.testing.assert_allclose(data.mean, pixels.mean((0, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(data.std, pixels.std((0, 2, 3), correction=0), atol=1e-4)
    assert load("retrieval", train_size=200).mean == data.mean


def test_vendors_can_be_chosen() -> None:
    data = load("retrieval", vendors=["emojione", "noto-v1"])
    assert [len(split) for split in splits_of(data)] == [400, 80, 320]
    archive = EmojiArchive.load(CUT)
    chosen = np.isin(archive.vendors[archive.vendor], ["emojione", "noto-v1"]) & (archive.split[archive.concept] == 2)
    assert torch.equal(data.test.images.tensor, torch.from_numpy(archive.images[chosen]))
    with pytest.raises(UserError, match="two vendors"):
        load("retrieval", vendors=["noto"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 64}, "32 pixels"),
        ({"vendors": ["openmoji"]}, "noto-v1"),
        ({"vendors": ["apple"], "variant": "full"}, "fxemoji"),
        ({"variant": "whole"}, "full"),
        ({"size": 4, "variant": "full"}, ">= 8"),
        ({"size": 4000, "variant": "full"}, "<= 256"),
    ],
)
def test_a_wrong_option_is_explained(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Emoji.Config.parse(options, where="data")


def test_missing_full_set_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"subnetbench datasets fetch emoji --data variant=full --data size=64"
    ) as error:
        load("retrieval", tmp_path, variant="full", size=64)
    assert str(tmp_path / "emoji" / "full-64.npz") in str(error.value)


def test_damaged_full_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "emoji" / "full-32.npz"
    path.parent.mkdir()
    whole = CUT.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :]
    for content in (b"", b"not an archive", whole[:middle], flipped):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"full-32\.npz is damaged"):
            load("retrieval", tmp_path, variant="full")
    np.save(path.open("wb"), np.array([{"a": "pickle"}], dtype=object))
    with pytest.raises(DataError, match="damaged"):
        load("retrieval", tmp_path, variant="full")
    path.write_bytes(whole)
    assert len(load("retrieval", tmp_path, variant="full").test) == 800


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("concept", lambda values: values + 400),
        ("split", lambda values: values[:-1]),
        ("images", lambda values: values.astype(np.int16)),
        ("images", lambda values: values[:, :1]),
        ("group", lambda values: -values),
    ],
)
def test_an_archive_that_contradicts_itself_is_refused(tmp_path: Path, name: str, change) -> None:
    with np.load(CUT, allow_pickle=False) as arrays:
        content = dict(arrays)
    content[name] = change(content[name])
    np.savez(tmp_path / "changed.npz", **content)
    with pytest.raises(DataError, match="not a valid emoji archive"):
        EmojiArchive.load(tmp_path / "changed.npz")


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "emoji" / "full-64.npz"
    path.parent.mkdir()
    path.write_bytes(CUT.read_bytes())
    with pytest.raises(DataError, match="32 pixels"):
        load("retrieval", tmp_path, variant="full", size=64)


def test_the_notice_names_every_package_of_the_cut() -> None:
    notice = (Path(CUT).parents[2] / "NOTICE").read_text()
    for line in EmojiArchive.load(CUT).provenance:
        name, version, licence = str(line).split(" ")
        assert f"npm {name} {version}" in notice
        assert (Path(CUT).parents[2] / "LICENSES" / f"{licence}.txt").is_file()


@pytest.mark.parametrize("task", ["classification", "retrieval", "text_image"])
def test_the_split_by_near_duplicates_lets_no_pair_cross(task):
    data = Emoji(Emoji.Config(split="near_duplicates"), Path()).load(task)
    again = Emoji(Emoji.Config(split="near_duplicates"), Path()).load(task)
    usual = Emoji(Emoji.Config(), Path()).load(task)
    assert data.digest == again.digest != usual.digest
    assert "near-duplicates" in data.protocol
    assert "near-duplicates" not in usual.protocol
    parts = [part.images for part in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == 2000
    for first, second in combinations(parts, 2):
        assert most_similar(second, first)[0].max() <= 0.9
    if task == "retrieval":
        names = [set(part.classes) for part in (data.train, data.validation, data.test)]
        assert not any(first & second for first, second in combinations(names, 2))


def test_the_usual_split_keeps_the_ids_of_its_runs():
    assert "split" not in Emoji.Config().model_dump(mode="json")
    assert Emoji.Config.parse(Emoji.Config(split="near_duplicates").model_dump(mode="json")).split == "near_duplicates"


def test_vendors_are_classes_in_all_splits():
    data = Emoji(Emoji.Config(labels="vendors"), Path()).load("classification")
    for part in (data.train, data.validation, data.test):
        assert part.classes == ("noto", "noto-v1", "twemoji", "fluent-emoji-flat", "emojione")
        assert len(set(np.bincount(part.labels))) == 1
    few = Emoji(Emoji.Config(labels="vendors", vendors=("twemoji", "noto")), Path()).load("classification")
    assert few.train.classes == ("noto", "twemoji")
