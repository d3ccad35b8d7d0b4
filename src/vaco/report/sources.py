"""Which source files a reporting command depends on: a hash of them is a parameter of its Snakemake rule.

A rule that runs `python -m vaco.report.figures.task_scores` does not see an edit of the package. With the hash of that
module and of everything it imports from here as a parameter, an edit of it redraws its figure alone, an edit of
`figures.style` redraws every figure, and neither trains anything.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

PACKAGE = "vaco.report"
FOLDER = Path(__file__).parent


def _file(module: str) -> Path:
    return FOLDER.joinpath(*module.split(".")).with_suffix(".py")


def imported(module: str) -> set[str]:
    """Modules of this package that a module imports directly, such as `figures.style`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(_file(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{PACKAGE}."):
            inside = f"{node.module}."[len(PACKAGE) + 1 :]
            names = [inside.removesuffix("."), *(f"{inside}{alias.name}" for alias in node.names)]
            found |= {name for name in names if name and _file(name).is_file()}
    return found


def closure(module: str) -> list[str]:
    """The module and all modules of this package that it imports, directly or not, sorted."""
    known: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in known:
            known.add(name)
            waiting += imported(name)
    return sorted(known)


def report_hash(module: str) -> str:
    """Sixteen hexadecimal digits of the sha256 over the sources of a module's `closure`."""
    digest = hashlib.sha256()
    for name in closure(module):
        digest.update(name.encode() + b"\0" + _file(name).read_bytes() + b"\0")
    return digest.hexdigest()[:16]
