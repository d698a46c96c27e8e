"""Errors that a user can act on: they name the field, the value, what was allowed, and the nearest spelling."""

import difflib
from collections.abc import Iterable, Sequence

_LONGEST = 200
"""Most characters of a value that are quoted."""


class SubnetbenchError(Exception):
    """Base of all errors that are reported as one message, without a traceback."""

    exit_status = 1


class UserError(SubnetbenchError):
    """Something the user wrote cannot be used; exit status 2.

    `field` is the name as the user wrote it (`config.sparsity`, `--seed`), `value` what was given there,
    `allowed` what would have been accepted.
    """

    exit_status = 2

    def __init__(self, message: str, *, field: str | None = None, value: object = None, allowed: object = None) -> None:
        self.field, self.value, self.allowed = field, value, allowed
        if field is not None:
            message = f"{field}: {message}"
        if value is not None:
            message += f" (got {_short(value)})"
        if allowed is not None:
            message += f"; allowed: {allowed}"
        super().__init__(message)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


class DataError(SubnetbenchError):
    """Data that is missing, incomplete or corrupt; the message says where to get it and where to put it."""


class RunFailure(SubnetbenchError):
    """A run that ended without a result; `reason` is a short stable word (`error`, `nan`, `killed`, ...)."""

    def __init__(self, message: str, *, reason: str = "error") -> None:
        self.reason = reason
        super().__init__(message)


class ChangedError(SubnetbenchError):
    """What a run stands on is no longer what it was; the message names both and what changed."""


def check_choice(field: str, value: object, allowed: Iterable[object]) -> None:
    """Raise `UserError` unless `value` is one of the `allowed` ones."""
    choices = list(allowed)
    if value not in choices:
        raise UserError("no such choice", field=field, value=value, allowed=", ".join(map(str, choices)))


def check_at_least(field: str, value: object, least: int) -> None:
    """Raise `UserError` unless `value` is a whole number of at least `least`, or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise UserError("must be a whole number", field=field, value=value, allowed=f">= {least}")


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like `name`, or None when nothing is close enough to be a misspelling of it."""
    close = difflib.get_close_matches(name.lower(), list(choices), n=1, cutoff=0.6)
    return close[0] if close else None


def unknown(kind: str, name: str, choices: Iterable[str]) -> UserError:
    """An error for a name that does not exist, with the nearest one that does."""
    known = sorted(choices)
    guess = nearest(name, known)
    hint = f"; did you mean {guess!r}?" if guess else ""
    return UserError(f"there is no {kind} {name!r}{hint} (known: {', '.join(known) or 'none'})")


def check_names(names: Sequence[str] | None, field: str) -> None:
    """Raise `UserError` for a single text where a list of names belongs: it would be read letter by letter."""
    if isinstance(names, str):
        raise UserError("must be a list of names", field=field, value=names, allowed=f"[{names!r}]")
