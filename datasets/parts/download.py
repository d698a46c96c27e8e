"""Fetching archives over the network: resumed where they broke off, checked before they count, unpacked once."""

import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from subnetbench.harness.data import DataError

TIMEOUT = 60.0
_CHUNK = 2**20


@dataclass(frozen=True)
class Download:
    """A published file: where it is, what it must hash to, and the folder below the data root that it belongs in.

    `holds` is what an archive unpacks to; a file without it is kept as it is.
    """

    url: str
    checksum: str
    algorithm: Literal["sha256", "md5"] = "sha256"
    into: str = ""
    holds: str | None = None

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.url.rsplit("/", 1)[-1].partition("?")[0]


def fetch(download: Download, root: Path) -> None:
    """Get the file, or what the archive holds, below `root`; nothing is done if it is there."""
    folder = root / download.into
    if download.holds is None:
        fetch_file(download, folder)
    elif not (folder / download.holds).exists():
        fetch_archive(download, folder)


def fetch_file(download: Download, folder: Path) -> Path:
    """The file in `folder`, downloaded unless it is there.

    What was received of a broken download is kept as `NAME.part` and gone on with, if the server can do that. A file
    that has another checksum is deleted. Raises `DataError` then, and when the server cannot be reached.
    """
    path = folder / download.name
    part = path.with_name(path.name + ".part")
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _receive(download.url, part)
        _check(download, part)
        os.replace(part, path)
    return path


def fetch_archive(download: Download, folder: Path) -> Path:
    """Download an archive and unpack it in `folder`, which is returned; the archive is deleted after that.

    Members that would land outside the folder are refused. An interrupted unpacking leaves nothing half done.
    """
    archive = fetch_file(download, folder)
    unpacked = folder / f".{archive.name}.unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(unpacked)
        else:
            with tarfile.open(archive) as packed_tar:
                packed_tar.extractall(unpacked, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{archive} cannot be unpacked: {error}") from None
    for entry in unpacked.iterdir():
        if (folder / entry.name).exists():
            raise DataError(f"{folder / entry.name} is in the way of what {archive.name} holds: move it and try again")
        os.replace(entry, folder / entry.name)
    unpacked.rmdir()
    archive.unlink()
    return folder


def _receive(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            resumes = response.status == 206
            expected = response.headers.get("Content-Length")
            with part.open("ab" if resumes else "wb") as file:
                shutil.copyfileobj(response, file, _CHUNK)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send
            return
        raise DataError(f"{url} cannot be had: {error}") from None
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url} broke off ({error}): give the same command again to continue") from None
    whole = (have if resumes else 0) + int(expected or 0)
    if expected is not None and part.stat().st_size < whole:
        raise DataError(f"{url} broke off after {part.stat().st_size} bytes: give the same command again to continue")


def _check(download: Download, path: Path) -> None:
    digest = hashlib.new(download.algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != download.checksum:
        path.unlink()
        raise DataError(
            f"{download.url} is not the published file: its {download.algorithm} is {digest.hexdigest()}, "
            f"not {download.checksum}; it was deleted"
        )
