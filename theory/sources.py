"""Which source files the theory's Snakemake rules depend on: hashes of them are parameters of the rules."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parent
DRAWING = ("figures", "figures_filter", "style", "training")  # an edit of these redraws, of any other verifies again


def _objectives() -> list[Path]:
    """The sources of `vaco.objectives`, found without importing it."""
    found = find_spec("vaco.objectives")
    return [] if found is None or found.origin is None else sorted(Path(found.origin).parent.glob("*.py"))


def theory_hash(drawing: bool) -> str:
    """Sixteen hexadecimal digits of the sha256 over the modules that draw, or over all others and the objectives."""
    chosen = [path for path in sorted(FOLDER.glob("*.py")) if (path.stem in DRAWING) == drawing]
    if not drawing:
        chosen = [path for path in chosen if path.stem != "sources"] + _objectives()
    digest = hashlib.sha256()
    for path in chosen:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
