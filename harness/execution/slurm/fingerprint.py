"""Which code a job was submitted with, so that a job which starts later under other code says so."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from subnetbench.harness.core import environment
from subnetbench.harness.core.hashing import SHORT_DIGITS, file_digest

_PACKAGE = Path(__file__).resolve().parents[3]
_FOLDERS = ("harness", "methods", "datasets")


def fingerprint(plugins: Iterable[Path] = ()) -> dict[str, str]:
    """Digests of the program's sources and of plug-in files, and the versions of what scores depend on."""
    digest = hashlib.sha256()
    for folder in _FOLDERS:
        for path in sorted((_PACKAGE / folder).rglob("*.py")):
            digest.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    own = {str(path): file_digest(path)[:SHORT_DIGITS] for path in plugins}
    return {"the sources of subnetbench": digest.hexdigest()[:SHORT_DIGITS], **own, **environment.versions()}


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What changed, in words; empty when nothing did."""
    changed = []
    for name in sorted({*before, *now}):
        old, new = before.get(name, "absent"), now.get(name, "absent")
        if old != new:
            looks_like_digest = len(old) == SHORT_DIGITS and len(new) == SHORT_DIGITS
            changed.append(name if looks_like_digest else f"{name} ({old} -> {new})")
    return changed
