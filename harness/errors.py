"""Errors that a user can act on: they name the field, the value, what was allowed, and the nearest spelling."""

import difflib
from collections.abc import Iterable


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
            message += f" (got {value!r})"
        if allowed is not None:
            message += f"; allowed: {allowed}"
        super().__init__(message)


class DataError(SubnetbenchError):
    """Data that is missing, incomplete or corrupt; the message says where to get it and where to put it."""


class RunFailure(SubnetbenchError):
    """A run that ended without a result; `reason` is a short stable word (`error`, `nan`, `killed`, ...)."""

    def __init__(self, message: str, *, reason: str = "error") -> None:
        self.reason = reason
        super().__init__(message)


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
