"""The file that holds emoji images, and what it holds about each: one npz without pickles."""

import os
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from subnetbench.harness.data import DataError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class EmojiArchive:
    """n images of m concepts by several vendors. Text is stored as NumPy unicode arrays."""

    images: np.ndarray  # uint8 (n, 3, size, size), on white
    concept: np.ndarray  # int32 (n,): row in the tables of concepts
    vendor: np.ndarray  # int32 (n,): row in `vendors`
    vendors: np.ndarray  # names
    hexcodes: np.ndarray  # (m,) code points in hexadecimal, joined by "-", without FE0F
    labels: np.ndarray  # (m,) CLDR short name
    captions: np.ndarray  # (m,) "label: tag, tag"
    group: np.ndarray  # int32 (m,): row in `groups`
    groups: np.ndarray  # names, in CLDR order
    subgroup: np.ndarray  # int32 (m,): row in `subgroups`
    subgroups: np.ndarray  # names, in CLDR order
    split: np.ndarray  # int32 (m,): index in `SPLITS`
    provenance: np.ndarray  # one line a package: name, version, licence

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return int(self.images.shape[-1])

    def save(self, path: Path) -> None:
        """Write to `path` at once or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez_compressed(file, **{field.name: getattr(self, field.name) for field in fields(self)})
            os.chmod(beside, 0o644)
            os.replace(beside, path)
        except BaseException:
            os.unlink(beside)
            raise

    @classmethod
    def load(cls, path: Path) -> "EmojiArchive":
        """

        Raises:
            DataError: For a damaged or foreign file.
            FileNotFoundError: When there is none.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                archive = cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"{path} is damaged or not an emoji archive ({error}); delete it and fetch again"
            ) from error
        fault = archive._fault()
        if fault:
            raise DataError(f"{path} is not a valid emoji archive: {fault}; delete it and fetch again")
        return archive

    def _fault(self) -> str | None:
        n, m = len(self.concept), len(self.hexcodes)
        if self.images.dtype != np.uint8 or self.images.shape != (n, 3, self.size, self.size):
            return f"images are {self.images.dtype} {self.images.shape}"
        for name in ("labels", "captions", "group", "subgroup", "split"):
            if getattr(self, name).shape != (m,):
                return f"{name} has shape {getattr(self, name).shape}, not ({m},)"
        rows = {
            "concept": (n, m),
            "vendor": (n, len(self.vendors)),
            "group": (m, len(self.groups)),
            "subgroup": (m, len(self.subgroups)),
            "split": (m, len(SPLITS)),
        }
        for name, (length, limit) in rows.items():
            values = getattr(self, name)
            if values.dtype != np.int32 or values.shape != (length,):
                return f"{name} is {values.dtype} {values.shape}, not int32 ({length},)"
            if length and not 0 <= values.min() <= values.max() < limit:
                return f"{name} points outside its table"
        return None
