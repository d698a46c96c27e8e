"""Extension of Griffe: examples that stand in the text of a docstring become code, as `>>>` means a quote in Markdown."""

import re

import griffe

# Lines at the margin: what is indented belongs to a section such as `Examples:`, which Griffe reads itself.
_EXAMPLE = re.compile(r"(?:^(?:>>>|\.\.\.).*\n?)(?:^(?!\s*$).*\n?)*", re.MULTILINE)


# Griffe takes the singular for an admonition, whose text is Markdown.
_SINGULAR = re.compile(r"^Example:$", re.MULTILINE)


def fenced(text: str) -> str:
    """`text` with each example and its output in a fence, and sections of one example read as examples."""
    return _EXAMPLE.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", _SINGULAR.sub("Examples:", text))


class DocstringExamples(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
