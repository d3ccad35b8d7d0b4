#!/usr/bin/env python
"""Copy what the repository shows from build/ to where it is tracked; `make release` draws it first.

    python scripts/release.py

Released are figures, typeset tables, the numbers of the prose and the explorer's data of the desk tiers, what
figures.yaml shows beside them, the theory's numbers and figures and the matrix of conformance where they were made
anew, and the README beside each archive. Archives themselves are written by `vaco archive --tier TIER --out
results/TIER/archive`. Nothing of another tier is copied, and nothing is deleted.
"""

from __future__ import annotations

import filecmp
import shutil
import sys
from pathlib import Path

from vaco.command import run_command
from vaco.yaml_file import read_yaml

BUILD = Path("build")
RELEASED = (
    *("paper/figures/desk", "paper/figures/lm_desk", "paper/figures/demonstrations", "paper/figures/theory"),
    *("paper/tables/desk", "paper/tables/cost", "paper/numbers.json", "paper/book/explorer/data.html"),
    *("results/desk/README.md", "results/theory", "results/demonstrations", "results/conformance"),
)


def released() -> list[Path]:
    """Every file below build/ that the repository tracks, relative to it."""
    beside = read_yaml(Path("workflow/figures.yaml"))["beside"].items()
    shown = [f"paper/figures/{tier}/{name}" for tier, names in beside for name in names]
    found = []
    for place in (*RELEASED, *(f"{name}.{kind}" for name in shown for kind in ("json", "pdf", "png"))):
        path = BUILD / place
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [file.relative_to(BUILD) for file in files if file.is_file()]
    return found


def main() -> int:
    """The command; see the module's docstring."""
    if not Path("workflow/Snakefile").is_file():
        raise SystemExit("release: there is no workflow/Snakefile here: run it in the root of the repository")
    files = released()
    if not files:
        raise SystemExit("release: build/ holds nothing to release: run snakemake first")
    changed = [file for file in files if not file.is_file() or not filecmp.cmp(BUILD / file, file, shallow=False)]
    for file in changed:
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(BUILD / file, file)
        print(file)
    print(f"{len(changed)} of {len(files)} files copied", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run_command(main)
