"""Whether tables are what their runs make: aggregate again, elsewhere, and compare every value."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from vaco.errors import UserError
from vaco.report import lm_aggregate
from vaco.report.aggregate import aggregate
from vaco.report.plan import read_plan

_NAMES = ("scores", "curves", "diagnostics", "runs", "lags")
TIDY = (*(f"{name}.parquet" for name in _NAMES), "configs.json", "summary.json")
LANGUAGE_TIDY = ("evals.parquet", "updates.parquet", "summary.json")
# Descriptions of the same results in other words are no difference.
_PROSE = ("description", "meanings", "warnings")


def underived(plan: str, root: Path, tables: Path) -> list[tuple[Path, str]]:
    """Name every tidy table that is not what the runs below `root` make.

    Args:
        plan: the tier's plan, JSON; that of a tier of language models has a name that begins with `lm_`.
        root: `results/<tier>`, with `runs/` and `references/`.
        tables: folder of the tables; a table that is not there is not looked at.

    Returns:
        Path and a sentence without it, for each table that differs.

    Raises:
        UserError: the runs cannot be aggregated.
    """
    language = json.loads(plan)["tier"].startswith("lm_")
    present = [name for name in (LANGUAGE_TIDY if language else TIDY) if (tables / name).is_file()]
    if not present:
        return []
    complete = "summary.json" not in present or not _missing(tables / "summary.json")
    with tempfile.TemporaryDirectory() as place:
        if language:
            lm_aggregate.write(json.loads(plan), root, Path(place), allow_missing=not complete)
        else:
            aggregate(read_plan(plan), root, Path(place), allow_missing=not complete)
        return [
            (tables / name, "is not what the runs make when they are aggregated again: delete it and run snakemake")
            for name in present
            if not _same(tables / name, Path(place) / name)
        ]


def _missing(summary: Path) -> list[str]:
    """Runs that the tables were made without."""
    record = json.loads(summary.read_text(encoding="utf-8"))
    found: list[str] = record.get("missing", [])
    return found


def _same(one: Path, other: Path) -> bool:
    """Whether two tables hold the same values, NaN equal to NaN; bytes may differ with the version of a library."""
    if one.read_bytes() == other.read_bytes():
        return True
    try:
        if one.suffix == ".json":
            return bool(_values(one) == _values(other))
        return bool(pd.read_parquet(one).equals(pd.read_parquet(other)))
    except (ValueError, OSError):
        return False


def _values(path: Path) -> Any:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object: delete it and run snakemake")
    return {name: value for name, value in content.items() if name not in _PROSE}
