"""A table of text as CSV, Markdown and LaTeX, the same bytes for the same content."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

Rows = Sequence[Sequence[str]]
_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
# LaTeX without a Unicode font knows these letters in mathematics only.
_SYMBOLS = {
    "ρ̄": r"$\bar\rho$",
    "c̄": r"$\bar c$",
    "½": r"$\frac12$",
    "γ": r"$\gamma$",
    "λ": r"$\lambda$",
    "δ": r"$\delta$",
    "ε": r"$\epsilon$",
    "σ": r"$\sigma$",
    "π": r"$\pi$",
    "β": r"$\beta$",
    "ρ": r"$\rho$",
    "²": r"$^2$",
    "‖": r"$\|$",
    "±": r"$\pm$",
    "−": r"$-$",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
    "–": "--",
}


def as_csv(header: Sequence[str], rows: Rows) -> str:
    """Comma-separated values with a header."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([list(header), *map(list, rows)])
    return stream.getvalue()


def as_markdown(header: Sequence[str], rows: Rows) -> str:
    """A pipe table, columns padded so that the source reads well too."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in cells]
    rule = "| " + " | ".join("-" * w for w in widths) + " |"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def as_latex(header: Sequence[str], rows: Rows) -> str:
    """A `tabular` with the rules of booktabs."""
    body = [" & ".join(escape(cell) for cell in row) + r" \\" for row in rows]
    top = " & ".join(escape(cell) for cell in header) + r" \\"
    columns = "l" * len(header)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", top, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Plain text for LaTeX."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in text)
    for symbol, command in _SYMBOLS.items():
        escaped = escaped.replace(symbol, command)
    return escaped


def write_all(stem: Path, header: Sequence[str], rows: Rows) -> None:
    """Write `stem`.csv, .md and .tex."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for suffix, render in ((".csv", as_csv), (".md", as_markdown), (".tex", as_latex)):
        stem.with_name(stem.name + suffix).write_text(render(header, rows), encoding="utf-8")
