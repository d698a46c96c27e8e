"""What stands in short for the files and the code that a run stands on: the digests in the columns of its record."""

from collections.abc import Mapping, Sequence

from subnetbench.harness.core.hashing import SHORT_DIGITS, content_hash

NO_FILES = "none"
"""Digest of files where a run reads none beside its data."""


def files_digest(files: Mapping[str, str], installed: Mapping[str, str], lineages: Mapping[str, str]) -> str:
    """One digest, 16 hex digits, or `none`: the same for runs of several seeds, so that of an input its lineage counts.

    Args:
        files: Digests of the files that config fields name, by field.
        installed: Those of libraries' files, by name.
        lineages: What each input stands on itself, by role.
    """
    parts = {"files": dict(files), "installed": dict(installed), "inputs": dict(lineages)}
    return content_hash(parts, SHORT_DIGITS) if any(parts.values()) else NO_FILES


def code_digest(method: str, dataset: str, harness: str, resumed: Sequence[str] = ()) -> str:
    """One digest, 16 hex digits, of those of a method's, a data set's and the program's code.

    Args:
        method: Digest of the method's code.
        dataset: Digest of the data set's.
        harness: Digest of the code of training and evaluation.
        resumed: Digests of all code that earlier parts of the same training ran under.
    """
    return content_hash([method, dataset, harness, *resumed], SHORT_DIGITS)
