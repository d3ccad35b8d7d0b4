"""What every figure and table has beside it, so that one can walk back to its runs.

The sidecar holds the caption, and the sha256 of the archive and of every table that the product was made of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaco.command import Parser
from vaco.paths import path_flag
from vaco.report.tables.read import Tables


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


def product_parser(description: str | None) -> Parser:
    """A parser of `--tables DIR --out STEM`, to which a product may add what it reads besides."""
    parser = Parser(description=description)
    parser.add_argument("--tables", type=path_flag, required=True, help="folder build/results/<tier>/tables")
    parser.add_argument("--out", type=path_flag, required=True, help="path of the product without its suffix")
    return parser


def parse(arguments: Sequence[str] | None, description: str) -> tuple[Tables, Path]:
    """Read `--tables DIR --out STEM`."""
    given = product_parser(description).parse_args(arguments)
    return Tables(given.tables), given.out
