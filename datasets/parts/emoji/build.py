"""Build the emoji archives from published packages: match, draw, drop duplicates, split.

`python -m subnetbench.datasets.parts.emoji.build --cut FILE --packages FOLDER` rebuilds the embedded cut.
"""

import argparse
import hashlib
import io
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subnetbench.datasets.parts.emoji.archive import EmojiArchive
from subnetbench.datasets.parts.emoji.sources import CUT_SIZE, CUT_VENDORS, NAMES, PACKAGES, VENDORS, collect_packages
from subnetbench.harness.data import DataError, digest_of

Key = tuple[str, str]  # hexcode and vendor: one drawing

# What the pinned packages hold; anything else means that the rasteriser draws differently.
FULL_CONCEPTS, FULL_IMAGES = 1582, 9614
RASTERISER = "0.5.0"
MIN_VENDORS = 4

CUT_CONCEPTS = (200, 40, 160)  # train, validation, test

# Drawings of two concepts count as the same when all their pixels are equal at this size. It is fixed, so that
# archives of every size hold the same images.
REFERENCE_SIZE = 96

_SPLIT_ENDS = (0.5, 0.6, 1.0)  # of the concepts, in the order of their hashes
_COMPONENTS = 2  # the group of skin tones and hair, which are no concepts of their own


@dataclass(frozen=True)
class Concept:
    """One emoji as the Unicode CLDR names it; skin tones are not distinguished."""

    hexcode: str
    label: str
    caption: str
    group: int
    subgroup: int


def build_full(packages: Path, size: int) -> EmojiArchive:
    """All 1582 concepts that at least four vendors drew, at `size` pixels; about a minute.

    `packages` is the folder of tarballs, which are fetched into it when they are not there.

    Raises:
        DataError: When one cannot be had or was altered, or when the counts are not the published ones.
    """
    concepts, drawings, images = _catalogue(packages)
    if size != REFERENCE_SIZE:
        images = {key: draw(drawings[key], size) for key in images}
    return _archive(packages, concepts, concept_splits(c.hexcode for c in concepts), images)


def build_cut(packages: Path) -> EmojiArchive:
    """400 concepts that all five permissively licensed vendors drew, at 32 pixels.

    A part of the full set: a concept is in the same split there. Within each split the groups keep their
    proportions, and within a group the concepts are taken in the order of their hashes.
    """
    concepts, drawings, _ = _catalogue(packages)
    splits = concept_splits(concept.hexcode for concept in concepts)
    complete = [c for c in concepts if all((c.hexcode, vendor) in drawings for vendor in CUT_VENDORS)]
    chosen: set[str] = set()
    for split, wanted in enumerate(CUT_CONCEPTS):
        groups = defaultdict(list)
        for concept in complete:
            if splits[concept.hexcode] == split:
                groups[concept.group].append(concept.hexcode)
        for group, count in proportional({group: len(codes) for group, codes in groups.items()}, wanted).items():
            chosen.update(sorted(groups[group], key=_hash)[:count])
    images = {(h, v): draw(drawings[h, v], CUT_SIZE) for h in chosen for v in CUT_VENDORS}
    return _archive(packages, [c for c in concepts if c.hexcode in chosen], splits, images)


def _catalogue(packages: Path) -> tuple[list[Concept], dict[Key, str], dict[Key, np.ndarray]]:
    """The concepts by hexcode, and each drawing that is kept, as SVG and in pixels at the reference size."""
    collect_packages(packages)
    concepts = read_concepts(packages)
    drawings = find_drawings(packages, concepts)
    images = _kept({key: draw(svg, REFERENCE_SIZE) for key, svg in drawings.items()})
    kept = {hexcode for hexcode, _ in images}
    concepts = sorted((c for c in concepts if c.hexcode in kept), key=lambda concept: concept.hexcode)
    if (len(concepts), len(images)) != (FULL_CONCEPTS, FULL_IMAGES):
        raise DataError(
            f"drew {len(images)} images of {len(concepts)} concepts, expected {FULL_IMAGES} of {FULL_CONCEPTS}; "
            f"the drawings are checked, so use the rasteriser of the published counts: resvg-py=={RASTERISER}"
        )
    return concepts, {key: drawings[key] for key in images}, images


def read_concepts(packages: Path) -> list[Concept]:
    """The emoji that have a group, components left out."""
    found = []
    for entry in NAMES.read_json(packages, "en/data.json"):
        if entry.get("group", _COMPONENTS) != _COMPONENTS:
            hexcode, label = normalise_hexcode(entry["hexcode"]), entry["label"]
            caption = make_caption(label, entry.get("tags", []))
            found.append(Concept(hexcode, label, caption, entry["group"], entry["subgroup"]))
    return found


def normalise_hexcode(hexcode: str) -> str:
    """Code points joined by "-", without the variation selector FE0F, which vendors write or not."""
    return "-".join(point for point in hexcode.upper().split("-") if point != "FE0F")


def make_caption(label: str, tags: Iterable[str]) -> str:
    """`label: tag, tag`, without the tags that are words of the label."""
    words = set(re.findall(r"\w+", label.lower()))
    new = [tag for tag in tags if tag.lower() not in words]
    return f"{label}: {', '.join(new)}" if new else label


def find_drawings(packages: Path, concepts: list[Concept]) -> dict[Key, str]:
    """The SVG of each concept by each vendor that has one.

    Vendors that publish a table of code points are matched by it, the others by the concept's label written as
    an icon name; labels that share an icon name ("keycap: #", "keycap: *") match nothing.
    """
    slugs = Counter(slug(concept.label) for concept in concepts)
    found = {}
    for vendor, package in VENDORS.items():
        icons = package.read_json(packages, "icons.json")
        by_code = {
            normalise_hexcode(code): name for code, name in dict(package.read_json(packages, "chars.json")).items()
        }
        for concept in concepts:
            if by_code:
                name = by_code.get(concept.hexcode)
            else:
                name = slug(concept.label) if slugs[slug(concept.label)] == 1 else None
            svg = None if name is None else make_svg(icons, name)
            if svg is not None:
                found[concept.hexcode, vendor] = svg
    return found


def slug(label: str) -> str:
    """A label as an icon name: ASCII, lower case, words joined by "-"."""
    plain = unicodedata.normalize("NFKD", label.lower().replace("’", "")).encode("ascii", "ignore").decode()
    return re.sub("[^a-z0-9]+", "-", plain).strip("-")


def make_svg(icons: dict[str, Any], name: str) -> str | None:  # open: JSON of the icon packages
    """A complete SVG document for an icon of an Iconify collection; None when it has no such icon."""
    seen = 0
    while name in icons.get("aliases", {}) and seen < 10:
        name, seen = icons["aliases"][name]["parent"], seen + 1
    icon = icons["icons"].get(name)
    if icon is None:
        return None
    left, top, width, height = (
        icon.get(side, icons.get(side, default))
        for side, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def draw(svg: str, size: int) -> np.ndarray:
    """Rasterise on white: uint8 (3, size, size). System fonts play no part."""
    try:
        import resvg_py
    except ModuleNotFoundError:
        raise DataError("resvg-py, which draws the emoji, is not installed: pip install 'subnetbench[emoji]'") from None
    from PIL import Image

    sized = svg.replace("<svg ", f'<svg width="{size}" height="{size}" ', 1)
    png = bytes(resvg_py.svg_to_bytes(svg_string=sized, background="#ffffff", skip_system_fonts=True))
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _kept(images: Mapping[Key, np.ndarray]) -> dict[Key, np.ndarray]:
    """Without pictures that stand for two concepts, then without concepts that too few vendors drew."""
    concepts_of = defaultdict(set)
    digests = {key: hashlib.sha256(image.tobytes()).digest() for key, image in images.items()}
    for (hexcode, _), digest in digests.items():
        concepts_of[digest].add(hexcode)
    own = {key for key, digest in digests.items() if len(concepts_of[digest]) == 1}
    drawn = Counter(hexcode for hexcode, _ in own)
    return {key: image for key, image in images.items() if key in own and drawn[key[0]] >= MIN_VENDORS}


def concept_key(hexcode: str) -> str:
    """What must stay in one split: man, woman and person doing the same thing share a key."""
    points = [point for point in hexcode.split("-") if point not in {"200D", "2640", "2642", "FE0F"}]
    return "-".join("1F9D1" if point in {"1F468", "1F469"} else point for point in points)


def concept_splits(hexcodes: Iterable[str]) -> dict[str, int]:
    """The split of each concept: its keys in order of SHA-256, 50 % train, 10 % validation, 40 % test."""
    keys = {hexcode: concept_key(hexcode) for hexcode in hexcodes}
    order = sorted(set(keys.values()), key=_hash)
    share = {key: rank / len(order) for rank, key in enumerate(order)}
    return {hexcode: sum(share[key] >= end for end in _SPLIT_ENDS) for hexcode, key in keys.items()}


def proportional(sizes: Mapping[int, int], total: int) -> dict[int, int]:
    """`total` shared out in proportion to `sizes` by largest remainders; ties go to the smaller name."""
    exact = {name: total * size / sum(sizes.values()) for name, size in sizes.items()}
    shares = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (shares[name] - exact[name], name))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _archive(
    packages: Path, concepts: list[Concept], splits: Mapping[str, int], images: Mapping[Key, np.ndarray]
) -> EmojiArchive:
    names = NAMES.read_json(packages, "meta/groups.json")
    vendors = [vendor for vendor in VENDORS if any(key[1] == vendor for key in images)]
    row = {concept.hexcode: i for i, concept in enumerate(concepts)}
    keys = sorted(images, key=lambda key: (row[key[0]], vendors.index(key[1])))
    groups = sorted({concept.group for concept in concepts})
    subgroups = sorted({concept.subgroup for concept in concepts})
    used = {VENDORS[vendor] for vendor in vendors} | {NAMES}
    return EmojiArchive(
        images=np.stack([images[key] for key in keys]),
        concept=np.array([row[hexcode] for hexcode, _ in keys], np.int32),
        vendor=np.array([vendors.index(vendor) for _, vendor in keys], np.int32),
        vendors=np.array(vendors),
        hexcodes=np.array([concept.hexcode for concept in concepts]),
        labels=np.array([concept.label for concept in concepts]),
        captions=np.array([concept.caption for concept in concepts]),
        group=np.array([groups.index(concept.group) for concept in concepts], np.int32),
        groups=np.array([names["groups"][str(group)] for group in groups]),
        subgroup=np.array([subgroups.index(concept.subgroup) for concept in concepts], np.int32),
        subgroups=np.array([names["subgroups"][str(subgroup)] for subgroup in subgroups]),
        split=np.array([splits[concept.hexcode] for concept in concepts], np.int32),
        provenance=np.array([f"{p.name} {p.version} {p.licence}" for p in PACKAGES if p in used]),
    )


def main() -> None:
    """Build the cut that is shipped, from packages in a folder: the command line of this module."""
    parser = argparse.ArgumentParser(description="Rebuild the embedded cut of the emoji set.")
    parser.add_argument("--cut", type=Path, required=True, help="file to write")
    parser.add_argument("--packages", type=Path, required=True, help="folder of npm tarballs, filled when empty")
    arguments = parser.parse_args()
    archive = build_cut(arguments.packages)
    archive.save(arguments.cut)
    print(f"{arguments.cut}: {len(archive.images)} images, digest {digest_of(archive.images, archive.split)}")


if __name__ == "__main__":
    main()
