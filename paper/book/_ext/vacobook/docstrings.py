"""Docstrings are written for readers of the source: signs that reStructuredText takes for markup are escaped here."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"(``.*?``|`[^`]+`)")
BULLET = re.compile(r"^\s*\* ")


def plain(lines: list[str]) -> list[str]:
    """Escape bars and stars outside of code: ``|ρ − 1|`` would be a substitution, ``π*`` the start of emphasis.

    Blocks after a double colon are code and stay as they are; a star that begins an item of a list stays one.
    """
    made: list[str] = []
    margin: int | None = None  # of the paragraph that announced a block of code
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if margin is not None and line.strip() and indent <= margin:
            margin = None
        if margin is None:
            made.append(_escaped(line))
            if line.rstrip().endswith("::"):
                margin = indent
        else:
            made.append(line)
    return made


def _escaped(line: str) -> str:
    bullet = BULLET.match(line)
    start = bullet.group() if bullet else ""
    parts = CODE.split(line[len(start) :])
    return start + "".join(part if part.startswith("`") else re.sub(r"([|*])", r"\\\1", part) for part in parts)


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = plain(lines)


def setup(app: Sphinx) -> None:
    """Listen before napoleon does, so that only the author's own text is escaped."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _process, priority=100)
