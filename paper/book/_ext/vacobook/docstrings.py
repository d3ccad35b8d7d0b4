"""Docstrings are written for readers of the source: signs that reStructuredText takes for markup are escaped here."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

LITERAL = re.compile(r"(``.*?``|`[^`]+`)")


def plain(lines: list[str]) -> list[str]:
    """Escape bars, stars and trailing underscores outside of code.

    ``|ρ − 1|`` would be a substitution, ``π*`` the start of emphasis, ``ρ_`` a link.
    """
    return [line if line.startswith("    ") and not line.strip().startswith("|") else _escaped(line) for line in lines]


def _escaped(line: str) -> str:
    parts = LITERAL.split(line)
    return "".join(part if part.startswith("`") else re.sub(r"([|*])", r"\\\1", part) for part in parts)


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = plain(lines)


def setup(app: Sphinx) -> None:
    """Listen before napoleon does, so that only the author's own text is escaped."""
    app.connect("autodoc-process-docstring", _process, priority=100)
