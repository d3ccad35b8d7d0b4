"""Which value of its knob each method scores highest at: the rule of a tier with sweeps, as a table.

For every K and sweep, the value with the highest score: the mean over tasks of the mean over seeds of the normalised
final score; of equal ones the smaller value. A sweep is decided once all of its runs at that K are finished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from vaco.command import run_command
from vaco.report.tables import caption
from vaco.report.tables.methods import centred_label
from vaco.report.tables.read import Tables
from vaco.report.tables.sidecar import parse, write_sidecar
from vaco.report.tables.typeset import write_all

HEADER = ("sweep", "method", "K", "knob", "value", "runs", "score", "area under curve", "chosen")


def choose(scores: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Score every value of every sweep, and choose.

    Args:
        scores: one row a run: `env`, `name`, `lag`, `seed`, `score`, `auc`.
        tables: for the tier's sweeps and grids.

    Returns:
        A row a sweep, K and value: `sweep`, `lag`, `name`, `value`, `runs`, `planned`, `score`, `auc` (NaN while a task
        has no run), `chosen` (true for one value of a finished sweep).
    """
    found = []
    for sweep, swept in tables.summary["sweeps"].items():
        for grid in tables.summary["grids"].values():
            if not set(swept["values"]) <= set(grid["algorithms"]):
                continue
            for lag in grid["capacities"]:
                rows = [
                    {"sweep": sweep, "lag": lag, "value": value} | _scored(scores, name, lag, grid)
                    for name, value in swept["values"].items()
                ]
                found.append(_decided(pd.DataFrame(rows)))
    return pd.concat(found, ignore_index=True).drop_duplicates(["sweep", "lag", "name"], ignore_index=True)


def _scored(scores: pd.DataFrame, name: str, lag: int, grid: Mapping[str, Sequence[str]]) -> dict[str, object]:
    own = scores[(scores["name"] == name) & (scores["lag"] == lag)]
    own = own[own["seed"].isin(grid["seeds"]) & own["env"].isin(grid["environments"])]
    by_task = own.groupby("env")[["score", "auc"]].mean()
    # Of tasks without a run the mean is not known, so neither is that over tasks.
    means = by_task.reindex(list(grid["environments"])).mean(skipna=False)
    planned = len(grid["environments"]) * len(grid["seeds"])
    return {"name": name, "runs": len(own), "planned": planned, **means}


def _decided(rows: pd.DataFrame) -> pd.DataFrame:
    """Mark the best of a sweep's values at one K, once all are known."""
    known = (rows["runs"] == rows["planned"]).all() and rows["score"].notna().all()
    ranked = rows.sort_values(["score", "value"], ascending=[False, True])
    return rows.assign(chosen=(rows.index == ranked.index[0]) & known)


def rows(table: pd.DataFrame, tables: Tables) -> list[tuple[str, ...]]:
    """The table as text, in the order of the plan."""
    made = []
    for _, row in table.iterrows():
        cells = ["missing" if np.isnan(row[metric]) else f"{row[metric]:.2f}" for metric in ("score", "auc")]
        label = centred_label(tables.methods[row["name"]]["algorithm"])
        knob, counted = tables.summary["sweeps"][row["sweep"]]["knob"], f"{row['runs']} of {row['planned']}"
        mark = "yes" if row["chosen"] else ""
        made.append((row["sweep"], label, str(row["lag"]), knob, f"{row['value']:g}", counted, *cells, mark))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this table."""
    tables, stem = parse(arguments, __doc__)
    table = choose(tables.read("scores"), tables)
    write_all(stem, HEADER, rows(table, tables))
    text = caption.joined(
        "Score and area under the curve of every method at every value of its knob: means over tasks of means over "
        "seeds. Chosen is, for every K, the value with the highest score, once all runs of a sweep are finished; these "
        "seeds serve for nothing else.",
        caption.scale(tables.summary),
        caption.normalisation(tables.summary),
        caption.caveats(tables.summary),
    )
    write_sidecar(tables, stem, text)
    return 0


if __name__ == "__main__":
    run_command(main)
