"""Building emoji archives: offline from packages made here; from the published ones on request.

The last two tests build from the real packages, about a minute each. They run when SUBNETBENCH_EMOJI_PACKAGES names
a folder; packages that are not there are fetched into it with npm.
"""

import hashlib
import io
import json
import os
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from subnetbench.datasets.emoji import CUT, Emoji
from subnetbench.datasets.parts.emoji import build as emoji_build
from subnetbench.datasets.parts.emoji import sources as emoji_sources
from subnetbench.datasets.parts.emoji.archive import EmojiArchive
from subnetbench.datasets.parts.emoji.build import (
    build_cut,
    build_full,
    concept_key,
    concept_splits,
    draw,
    make_caption,
    make_svg,
    proportional,
    slug,
)
from subnetbench.datasets.parts.emoji.sources import NAMES, VENDORS, Package
from subnetbench.harness.core.errors import DataError, UserError

COLOURS = {"1F600": "red", "1F601": "green", "1F602": "blue", "0023-20E3": "gray", "002A-20E3": "gold", "1F3FB": "tan"}
LABELS = {
    "1F600": "grinning face",
    "1F601": "beaming face",
    "1F602": "crying face",
    "0023-20E3": "keycap: #",
    "002A-20E3": "keycap: *",
    "1F3FB": "light skin tone",
}


def write_package(folder: Path, package: Package, members: dict[str, object]) -> Package:
    """The tarball of a package as `npm pack` would write it; the package with the digest that it has."""
    with tarfile.open(folder / package.tarball, "w:gz") as archive:
        for name, value in members.items():
            content = json.dumps(value).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return replace(package, sha256=hashlib.sha256((folder / package.tarball).read_bytes()).hexdigest())


def icons(shape: str, codes: list[str], *, by_code: bool) -> dict[str, object]:
    """A collection whose drawings differ by vendor (`shape`) and concept (colour)."""
    names = {code: f"icon-{code}" if by_code else slug(LABELS[code]) for code in codes}
    bodies = {name: {"body": shape.replace("COLOUR", COLOURS[code])} for code, name in names.items()}
    chars = {code.lower(): name for code, name in names.items()} if by_code else {}
    return {"icons.json": {"width": 10, "height": 10, "icons": bodies}, "chars.json": chars}


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four vendors. The first three draw all; the fourth has no table of codes and lacks `1F602`."""
    pytest.importorskip("resvg_py")
    folder = tmp_path / "packages"
    folder.mkdir()
    shapes = {
        "noto": '<path fill="COLOUR" d="M1 1h8v8z"/>',
        "twemoji": '<circle fill="COLOUR" cx="5" cy="5" r="4"/>',
        "openmoji": '<path fill="COLOUR" d="M5 1l4 8H1z"/>',
        "noto-v1": '<path fill="COLOUR" d="M2 3h5v4H2z"/>',
    }
    vendors = {}
    for vendor, shape in shapes.items():
        own_names = vendor == "noto-v1"
        codes = [code for code in COLOURS if not (own_names and code == "1F602")]
        content = icons(shape, codes, by_code=not own_names)
        if vendor == "twemoji":  # the same picture for two concepts
            bodies = content["icons.json"]["icons"]
            bodies["icon-1F601"] = bodies["icon-1F602"]
        vendors[vendor] = write_package(folder, VENDORS[vendor], content)
    entries = [
        {"hexcode": f"{code}-FE0F", "label": label, "tags": ["face", "joy"], "group": 0, "subgroup": 1}
        for code, label in LABELS.items()
    ]
    entries[-1]["group"] = 2
    entries.append({"hexcode": "1F1E6", "label": "regional indicator A"})
    groups = {"groups": {"0": "smileys", "2": "component"}, "subgroups": {"1": "faces"}}
    names = write_package(folder, NAMES, {"en/data.json": entries, "meta/groups.json": groups})
    monkeypatch.setattr(emoji_build, "VENDORS", vendors)
    monkeypatch.setattr(emoji_build, "NAMES", names)
    for module in (emoji_build, emoji_sources):
        monkeypatch.setattr(module, "PACKAGES", (*vendors.values(), names))
    # Kept: `1F600` by four. `1F601` and `1F602` lose the shared picture and have three; the keycaps have three, since
    # their labels give one icon name.
    monkeypatch.setattr(emoji_build, "FULL_CONCEPTS", 1)
    monkeypatch.setattr(emoji_build, "FULL_IMAGES", 4)
    return folder


def test_only_concepts_with_enough_drawings_of_their_own_are_kept(packages: Path) -> None:
    archive = build_full(packages, 16)
    assert list(archive.hexcodes) == ["1F600"]
    assert list(archive.vendors[archive.vendor]) == ["noto", "twemoji", "openmoji", "noto-v1"]
    assert archive.images.shape == (4, 3, 16, 16)
    assert list(archive.groups) == ["smileys"]
    assert list(archive.captions) == ["grinning face: joy"]
    assert len(archive.provenance) == 5


def test_lower_threshold_shows_what_was_left_out(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emoji_build, "MIN_VENDORS", 2)
    monkeypatch.setattr(emoji_build, "FULL_CONCEPTS", 5)
    monkeypatch.setattr(emoji_build, "FULL_IMAGES", 4 + 3 + 2 + 3 + 3)
    archive = build_full(packages, 8)
    drawn = {str(code): int((archive.concept == row).sum()) for row, code in enumerate(archive.hexcodes)}
    assert drawn == {"1F600": 4, "1F601": 3, "1F602": 2, "0023-20E3": 3, "002A-20E3": 3}


def test_drawings_are_red_on_white(packages: Path) -> None:
    triangle = build_full(packages, 32).images[0]  # noto: right triangle below the diagonal y = x
    assert triangle[:, 10, 20].tolist() == [255, 0, 0]
    assert triangle[:, 0, 0].tolist() == [255, 255, 255]
    assert triangle[:, 25, 8].tolist() == [255, 255, 255]


def test_fetch_builds_a_file_that_loads(packages: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "emoji").mkdir(parents=True)
    packages.rename(root / "emoji" / "packages")
    path = Emoji(Emoji.Config(variant="full", size=24), root).fetch()
    assert path == root / "emoji" / "full-24.npz"
    assert EmojiArchive.load(path).size == 24
    assert sorted(each.name for each in path.parent.iterdir()) == ["full-24.npz", "packages"]
    with pytest.raises(UserError, match="comes with the program"):
        Emoji(Emoji.Config(), root).fetch()


def test_other_counts_are_refused(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emoji_build, "FULL_IMAGES", 5)
    with pytest.raises(DataError, match="drew 4 images of 1 concepts, expected 5 of 1"):
        build_full(packages, 16)


def test_an_altered_package_is_refused(packages: Path) -> None:
    path = packages / VENDORS["twemoji"].tarball
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"not the published @iconify-json/twemoji 1\.2\.5"):
        build_full(packages, 16)


def fake_npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(exist_ok=True)
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_npm_fetches_what_is_missing(packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, aside = VENDORS["twemoji"].tarball, tmp_path / "elsewhere.tgz"
    (packages / name).rename(aside)
    script = f'[ "$1 $5 $6" = "pack {packages} @iconify-json/twemoji@1.2.5" ] && cp {aside} "$5/{name}"'
    fake_npm(tmp_path / "bin", script, monkeypatch)
    assert len(build_full(packages, 16).images) == 4


def test_a_failing_npm_is_reported_with_the_way_around(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (packages / NAMES.tarball).unlink()
    fake_npm(tmp_path / "bin", "echo registry unreachable >&2; exit 1", monkeypatch)
    with pytest.raises(DataError, match="registry unreachable") as error:
        build_full(packages, 16)
    assert f"put {NAMES.tarball}" in str(error.value)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"npm.* is not installed"):
        build_full(packages, 16)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    archive = EmojiArchive.load(CUT)
    path = tmp_path / "full.npz"
    path.write_bytes(b"old")
    with pytest.raises(ValueError):
        replace(archive, labels=np.ones((2, 2)), images=Unwritable()).save(path)
    assert [each.name for each in tmp_path.iterdir()] == ["full.npz"]
    assert path.read_bytes() == b"old"


class Unwritable:
    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise ValueError("no array")


def test_variants_of_a_concept_share_a_key() -> None:
    runner = ["1F3C3", "1F3C3-200D-2640", "1F3C3-200D-2642-FE0F"]
    cook = ["1F9D1-200D-1F373", "1F468-200D-1F373", "1F469-200D-1F373"]
    assert {concept_key(code) for code in runner} == {"1F3C3"}
    assert len({concept_key(code) for code in cook}) == 1
    assert concept_key("1F600") != concept_key("1F601")


def test_splits_are_by_key_and_have_their_shares() -> None:
    codes = [f"{number:04X}{suffix}" for number in range(0x1F300, 0x1F300 + 500) for suffix in ("", "-200D-2640")]
    splits = concept_splits(codes)
    assert all(splits[code] == splits[f"{code}-200D-2640"] for code in codes[::2])
    assert np.bincount(list(splits.values())).tolist() == [500, 100, 400]
    assert splits == concept_splits(reversed(codes))


def test_shares_are_proportional() -> None:
    assert proportional({1: 50, 2: 30, 3: 20}, 10) == {1: 5, 2: 3, 3: 2}
    assert proportional({1: 1, 2: 1, 3: 1}, 4) == {1: 2, 2: 1, 3: 1}


def test_icon_names_captions_and_aliases() -> None:
    assert slug("Mrs. Claus’s piñata (hot)") == "mrs-clauss-pinata-hot"
    assert make_caption("cat face", ["cat", "Face", "pet"]) == "cat face: pet"
    assert make_caption("cat face", ["cat"]) == "cat face"
    collection = {"icons": {"a": {"body": "<g/>", "width": 4}}, "aliases": {"b": {"parent": "a"}, "x": {"parent": "x"}}}
    assert 'viewBox="0 0 4 16"' in make_svg(collection, "b")
    assert make_svg(collection, "c") is None
    assert make_svg(collection, "x") is None


def test_an_oblong_icon_is_centred_and_not_stretched() -> None:
    pytest.importorskip("resvg_py")
    collection = {"icons": {"bar": {"body": '<path d="M0 0h10v20H0z"/>', "width": 10, "height": 20}}}
    image = draw(make_svg(collection, "bar"), 20)
    assert (image[:, :, 5:15] == 0).all()
    assert (image[:, :, :5] == 255).all()
    assert (image[:, :, 15:] == 255).all()


@pytest.fixture
def published() -> Path:
    folder = os.environ.get("SUBNETBENCH_EMOJI_PACKAGES")
    if not folder:
        pytest.skip("SUBNETBENCH_EMOJI_PACKAGES names no folder")
    return Path(folder)


def test_the_cut_can_be_rebuilt(published: Path) -> None:
    built, shipped = build_cut(published), EmojiArchive.load(CUT)
    for name in EmojiArchive.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(built, name), getattr(shipped, name))


def test_the_full_set_has_the_published_splits(published: Path) -> None:
    archive, cut = build_full(published, 96), EmojiArchive.load(CUT)
    concepts = np.bincount(archive.split).tolist()
    images = np.bincount(archive.split[archive.concept]).tolist()
    assert (concepts, images) == ([791, 163, 628], [4839, 956, 3819])
    assert (len(archive.groups), len(archive.subgroups)) == (9, 96)
    split_of = dict(zip(archive.hexcodes, archive.split, strict=True))
    assert all(split_of[code] == split for code, split in zip(cut.hexcodes, cut.split, strict=True))
