"""No number typed by hand: what a page's prose states must come from a generated file.

A decimal, a percentage, or a number of three or more digits in prose is refused unless it comes through ``{num}``.
Not prose, and so not looked at: code, mathematics, roles and directives' options, headings, links, citations, the
front matter, HTML. Free are years of publications, identifiers such as arXiv's and version numbers. Everything else
needs a line in ``allowed_numbers.yml`` that says why it is no result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vaco.yaml_file import read_yaml

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ALLOWED = "allowed_numbers.yml"

FENCE = re.compile(r"^\s*(`{3,}|~{3,}|:{3,})(.*)$")
# Directives whose body is prose, to be read like the rest of the page.
PROSE_DIRECTIVES = {
    *("admonition", "note", "warning", "tip", "important", "caution", "hint", "attention", "seealso", "dropdown"),
    *("computed", "result-figure", "result-table", "figure", "margin", "sidebar", "grid", "card", "tab-set"),
    *("tab-item", "grid-item-card", "list-table", "epigraph", "topic"),
    *("prf:theorem", "prf:lemma", "prf:proof", "prf:definition", "prf:remark", "prf:corollary", "prf:proposition"),
    *("prf:example", "prf:assumption", "prf:observation", "prf:algorithm"),
}
INLINE = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"<!--.*?-->",
        r"(?<![\\$])\$\$.*?\$\$",
        r"(?<![\\$])\$(?!\s)(?:[^$\n]|\n(?!\s*\n))+?\$",
        r"\\\(.*?\\\)",
        r"\{[\w:.+-]+\}`[^`]*`",  # a role
        r"(`+)(?!`).*?(?<!`)\1(?!`)",  # code
        r"\]\([^)\s]*\)",  # the target of a link
        r"https?://\S+",
        r"<[^>\n]+>",
        r"\[\^[^\]]+\]",
    )
]
FREE = [
    re.compile(pattern)
    for pattern in (
        r"arXiv:?\s*\d{4}\.\d{4,5}",
        r"(?:et al\.,?|[A-Z][\w-]+,?|\(|;)\s*\(?(?:19|20)\d\d[a-z]?\b",  # a year after a name or in brackets
        r"\b[vV]?\d+\.\d+\.\d+\b|\bv\d[\d.]*|\b(?:Python|version|Debian|MuJoCo|SLURM|Gymnasium)\s+[\d.]+\d",
        r"\b(?:Theorem|Lemma|Corollary|Proposition|Eq\.|Equation|Section|Table|Figure|Chapter|Algorithm)s?\s+[A-Z]?\d[\d.]*"
        r"(?:(?:,| and|–|-| to)\s*\d[\d.]*)*",
    )
]
UNIT = r"(?:\s?%|(?:\s*|-)(?:percent|per cent)|[kMG])?"
NUMBER = re.compile(r"(?<![\w.,/#-])[-−+]?(?:\d+(?:[.,]\d+)+|\d+)" + UNIT + r"(?![\w/])")


class Found(NamedTuple):
    """A number in prose: its line, counted from 1, and its text."""

    line: int
    text: str


def prose_lines(text: str) -> list[str]:
    """The page with everything that is not prose replaced by nothing; as many lines as before."""
    kept: list[str] = []
    fences: list[tuple[str, bool]] = []
    options = front = False
    for number, line in enumerate(text.split("\n")):
        if number == 0 and line.strip() == "---":
            front = True
        elif front:
            front = line.strip() != "---"
            line = ""
        if number == 0 and front:
            line = ""
        match = FENCE.match(line)
        if match:
            mark, rest = match.group(1), match.group(2).strip()
            if fences and not rest and mark[0] == fences[-1][0][0] and len(mark) >= len(fences[-1][0]):
                fences.pop()
            elif _reads(fences):
                name = re.match(r"\{([\w:.-]+)\}", rest)
                fences.append((mark, bool(name and name.group(1) in PROSE_DIRECTIVES)))
                options = True
            kept.append("")
            continue
        if options and re.match(r"^\s*:[\w-]+:", line):
            line = ""
        elif line.strip():
            options = False
        hidden = not _reads(fences) or line.lstrip().startswith("#") or re.match(r"^\s*\(\S+\)=\s*$", line)
        kept.append("" if hidden else line)
    return _without_inline("\n".join(kept)).split("\n")


def _reads(fences: list[tuple[str, bool]]) -> bool:
    return all(is_prose for _, is_prose in fences)


def _without_inline(text: str) -> str:
    for pattern in INLINE:
        text = pattern.sub(lambda found: " " + "\n" * found.group().count("\n"), text)
    for pattern in FREE:
        text = pattern.sub(" ", text)
    return text


def numbers(text: str) -> Iterator[Found]:
    """Every decimal, percentage and number of three or more digits in the prose of a page."""
    for at, line in enumerate(prose_lines(text), 1):
        for match in NUMBER.finditer(re.sub(r"^\s*\d+\.\s", "", line)):
            word = match.group().strip()
            digits = sum(letter.isdigit() for letter in word)
            if digits >= 3 or re.search(r"\d[.,]\d|%|percent|per cent", word):
                yield Found(at, word)


def allowed(path: Path) -> dict[str, dict[str, str]]:
    """The exceptions: by page, then by number as written, the reason.

    Raises:
        ValueError: an exception without a reason.
    """
    listed = (read_yaml(path) or {}) if path.is_file() else {}
    for page, entries in listed.items():
        for number, reason in entries.items():
            if not isinstance(number, str) or not str(reason or "").strip():
                raise ValueError(f"{path.name}: {page}: '{number}' must be quoted and needs a reason")
    return {str(page): dict(entries) for page, entries in listed.items()}


def unexplained(page: str, text: str, exceptions: dict[str, dict[str, str]]) -> list[Found]:
    """The numbers of a page that are neither generated nor excepted, for the page or for all ("everywhere")."""
    free = exceptions.get("everywhere", {}) | exceptions.get(page, {})
    return [found for found in numbers(text) if found.text not in free]


def warn(app: Sphinx, docname: str, content: list[str]) -> None:
    """Check a page as it is read."""
    from sphinx.util import logging

    path = Path(app.env.doc2path(docname))
    if path.suffix != ".md":
        return
    exceptions = allowed(Path(app.srcdir) / ALLOWED)
    for found in unexplained(docname, content[0], exceptions):
        logging.getLogger(__name__).warning(
            "'%s' is typed into the prose: use {num}, or give a reason in %s",
            found.text,
            ALLOWED,
            location=(docname, found.line),
        )
