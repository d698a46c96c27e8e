"""Tables as Markdown and LaTeX, frames as CSV: text of others is escaped, so that it stays text."""

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from subnetbench.harness.leaderboard.document import Document


def clean(text: object) -> str:
    """The text on one line, without characters that would move a cursor or turn the direction of writing."""
    words = str(text)
    if words.isprintable():
        return words
    return "".join(character if character.isprintable() else "\ufffd" for character in words)


def markdown(content: Document) -> str:
    """Tables with headings, then the notes as a list."""
    parts = []
    for table in content.tables:
        rule = ["---:" if numeric else "---" for numeric in table.numeric]
        body = [_pipes(map(escape_markdown, table.headers)), _pipes(rule)]
        body += [_pipes(map(escape_markdown, line)) for line in table.cells]
        parts.append(f"### {escape_markdown(table.title)}\n\n" + "\n".join(body))
    parts.append("\n".join(f"- {escape_markdown(note.strip())}" for note in content.notes))
    return "\n\n".join(parts) + "\n"


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escape_markdown(text: str) -> str:
    """Text as Markdown shows it."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", clean(text)).replace("&", "&amp;").replace("<", "&lt;")


def latex(content: Document) -> str:
    """Tables for the booktabs package; the notes are comments."""
    parts = [f"% {clean(note)}" for note in content.notes]
    for table in content.tables:
        parts += [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{escape_latex(table.title)}}}",
            f"\\begin{{tabular}}{{{''.join('r' if numeric else 'l' for numeric in table.numeric)}}}",
            "\\toprule",
            *_latex_rows([table.headers]),
            "\\midrule",
            *_latex_rows(table.cells),
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
    return "\n".join(parts) + "\n"


def _latex_rows(lines: Sequence[Sequence[str]]) -> list[str]:
    return [" & ".join(map(escape_latex, line)) + " \\\\" for line in lines]


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "±": "$\\pm$",
    "–": "--",
    "·": "$\\cdot$",
    "✓": "$\\checkmark$",
    "✗": "$\\times$",
}


def escape_latex(text: str) -> str:
    """Text as LaTeX shows it, with no character left that means something there."""
    return "".join(_LATEX.get(character, character) for character in clean(text))


def tidy_csv(frame: pd.DataFrame) -> str:
    """A frame as CSV; tuples of run ids become words."""
    for name in frame.select_dtypes(exclude=["number", "bool"]).columns:
        texts = [" ".join(value) if isinstance(value, tuple) else value for value in frame[name]]
        frame = frame.assign(**{name: [_no_formula(clean(text)) for text in texts]})
    return str(frame.to_csv(index=False))


def _no_formula(text: str) -> str:
    """Spreadsheets run text that starts like a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
