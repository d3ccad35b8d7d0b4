"""The lags met in training, read from a tier's diagnostics table when there is one: TV values only."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

COLUMNS = ("capacity", "backward_lag", "forward_lag", "tv_after")


class Lags(NamedTuple):
    """Phases of training runs.

    Attributes:
        rows: capacity, backward_lag, forward_lag and tv_after of each phase; empty without a table.
        label: which tier, for titles.
        note: one sentence on where the rows come from.
    """

    rows: list[dict[str, Any]]
    label: str
    note: str


def read_lags(folder: Path | None, algorithm: str = "vaco") -> Lags:
    """Read FOLDER/diagnostics.parquet.

    Args:
        folder: build/results/<tier>/tables, or None.
        algorithm: whose phases, in the settings of the comparison.

    Returns:
        The lags; without rows, and saying so, when the table or the algorithm is not there.
    """
    path = None if folder is None else folder / "diagnostics.parquet"
    if path is None or not path.is_file():
        return Lags([], "", f"no training results at {folder}: figures show the theory alone")
    import pandas as pd

    table = pd.read_parquet(path).rename(columns={"lag": "capacity"})
    # By name: a study's variants with another threshold or number of epochs are runs of the same algorithm.
    table = table[table["name"] == algorithm].dropna(subset=list(COLUMNS))
    tier = path.parent.parent.name
    if table.empty:
        return Lags([], "", f"{path} holds no phases of {algorithm}: figures show the theory alone")
    rows = [dict(zip(COLUMNS, values, strict=True)) for values in table[list(COLUMNS)].to_numpy().tolist()]
    for row in rows:
        row["capacity"] = int(row["capacity"])
    return Lags(rows, f"{algorithm}, {tier} tier", f"{len(rows)} phases of {algorithm} from {path}")
