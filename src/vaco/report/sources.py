"""Which source files a reporting command depends on: a hash of them is a parameter of its Snakemake rule.

A rule that runs `python -m vaco.report.figure3` does not see an edit of the package. With the hash of `figure3` and
of everything it imports from here as a parameter, an edit of `figure3` redraws Figure 3 alone, an edit of `style`
redraws every figure, and neither trains anything.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

PACKAGE = "vaco.report"
FOLDER = Path(__file__).parent


def imported(module: str) -> set[str]:
    """Modules of this package that a module imports directly, by their last name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            found.add((node.module or "").removeprefix(f"{PACKAGE}."))
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
        digest.update(name.encode() + b"\0" + (FOLDER / f"{name}.py").read_bytes() + b"\0")
    return digest.hexdigest()[:16]
