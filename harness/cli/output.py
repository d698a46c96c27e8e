"""What may reach the terminal: texts that come from files cannot move its cursor, set its title or hide what they say."""

import re
from typing import Any, TextIO

_COLOUR = r"\x1b\[[0-9;]*m"
# Control characters but tab and line feed, and marks that turn the direction of writing.
_UNSAFE = re.compile(rf"({_COLOUR})|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` with every control character replaced by `?`, but for tabs, line feeds and colours."""
    return _UNSAFE.sub(lambda found: found[1] or "?", text)


class SafeOutput:
    """A text stream that writes what `printable` leaves; in everything else it is the stream that it was made from."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write `text`; returns its length, as streams do."""
        self.stream.write(printable(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
