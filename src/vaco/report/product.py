"""The command that every figure and table shares: read tables, make the thing, write it with its sidecar.

Each module of a figure is a command of its own: `python -m vaco.report.figure3 --tables build/results/smoke/tables
--out build/paper/figures/smoke/figure3` writes `figure3.pdf`, `figure3.png` and `figure3.json`. The sidecar holds the
caption, and the sha256 of the archive and of every table that the figure was made of, so that one can walk back to its
runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from vaco.report import style
from vaco.report.tables import Tables


class Drawn(NamedTuple):
    """A figure and its caption."""

    figure: Figure
    caption: str


def sidecar(tables: Tables, name: str, caption: str) -> dict[str, Any]:
    """What is written beside a figure or table."""
    summary = tables.summary
    grids = summary["grids"]
    return {
        "name": name,
        "tier": summary["tier"],
        "caption": caption,
        "seeds": list(grids[name if name in grids else "main"]["seeds"]),
        "steps": summary.get("steps"),
        "runs": summary["runs"],
        "planned_runs": summary["planned_runs"],
        "missing": summary["missing"],
        "warnings": summary["warnings"],
        "config_hash": summary["config_hash"],
        "archive": summary["archive"],
        "tables": tables.sources(),
    }


def write_sidecar(tables: Tables, stem: Path, caption: str) -> None:
    """Write `stem`.json."""
    text = json.dumps(sidecar(tables, stem.name, caption), indent=2, ensure_ascii=False) + "\n"
    stem.with_name(stem.name + ".json").write_text(text, encoding="utf-8")


def parse(arguments: Sequence[str] | None, description: str) -> tuple[Tables, Path]:
    """Read `--tables DIR --out STEM`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--tables", type=Path, required=True, help="folder build/results/<tier>/tables")
    parser.add_argument("--out", type=Path, required=True, help="path of the product without its suffix")
    given = parser.parse_args(arguments)
    return Tables(given.tables), given.out


def figure_command(draw: Callable[[Tables], Drawn], arguments: Sequence[str] | None, description: str) -> int:
    """Draw, save as PDF and PNG, write the sidecar."""
    tables, stem = parse(arguments, description)
    drawn = draw(tables)
    style.save(drawn.figure, stem)
    write_sidecar(tables, stem, drawn.caption)
    return 0
