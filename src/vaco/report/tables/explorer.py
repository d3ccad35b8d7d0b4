"""The data of the book's results explorer: estimates of the finished tiers, as JSON inside an HTML fragment.

`python -m vaco.report.tables.explorer --tables build/results/desk/tables --out build/paper/book/explorer/data.html`

Folders without tables are left out, so the page can be built before there are any results. The page embeds the fragment
instead of fetching a file, so that it works without a server. Numbers keep six significant digits of the tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from vaco.command import Parser, run_command
from vaco.paths import path_flag
from vaco.report.tables import methods
from vaco.report.tables.read import Tables

NEEDED = ("summary.json", "aggregates.parquet", "iqm_curves.parquet", "task_scores.parquet", "task_curves.parquet")
ALL_TASKS = ""
"""The task under which aggregates over tasks are filed."""


def rounded(value: float) -> float | int | None:
    """Six significant digits; None where there is no number."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.6g}")
    return int(short) if short.is_integer() else short


def _values(table: pd.DataFrame, column: str) -> list[float | int | None]:
    return [rounded(float(value)) for value in table[column]]


def scores(tables: Tables) -> list[dict[str, Any]]:
    """One record a task (or all of them), metric, name and K, with `point`, `low`, `high` and the number of runs."""
    aggregates = tables.read("aggregates")
    frames = [aggregates.assign(task=ALL_TASKS), tables.read("task_scores").rename(columns={"env": "task"})]
    records = []
    for frame in frames:
        # Cells without a finished run have no point, and are no record.
        for _, row in frame[frame["point"].notna()].iterrows():
            ends = {key: rounded(float(row[key])) for key in ("point", "low", "high")}
            # A name and K may stand in several grids, with different tasks and seeds.
            label = {"task": row["task"], "grid": row["grid"], "metric": row["metric"], "name": row["name"]}
            records.append(label | {"lag": int(row["lag"]), "runs": int(row["runs"])} | ends)
    return records


def curves(tables: Tables) -> list[dict[str, Any]]:
    """One record a task (or all of them), name and K: `steps` and the lists `point`, `low`, `high`.

    The curve of a single task is that of every grid: its `grid` is None.
    """
    records = []
    sources = (("iqm_curves", ["grid", "name", "lag"]), ("task_curves", ["env", "name", "lag"]))
    for source, keys in sources:
        for (first, name, lag), group in tables.read(source).groupby(keys, sort=False):
            ordered = group.sort_values("grid_steps")
            place = {"task": ALL_TASKS, "grid": first} if source == "iqm_curves" else {"task": first, "grid": None}
            label = place | {"name": name, "lag": int(str(lag)), "runs": int(group["runs"].min())}
            ends = {key: _values(ordered, key) for key in ("point", "low", "high")}
            records.append(label | {"steps": [int(at) for at in ordered["grid_steps"]]} | ends)
    return records


def looks(names: Sequence[str], tables: Tables) -> dict[str, dict[str, Any]]:
    """Label, colour and dashes of every name, as in the figures; no colour where the figures use black."""
    made = {}
    for name in names:
        look = methods.look(name, tables.methods)
        dashes = [round(2 * part, 1) for part in look.dashes[1]] if isinstance(look.dashes, tuple) else []
        colour = None if look.colour == "#000000" else look.colour
        made[name] = {"label": look.label, "colour": colour, "dashes": dashes}
    return made


def tier(tables: Tables) -> dict[str, Any]:
    """All that the page shows of one tier."""
    summary = tables.summary
    found = {"scores": scores(tables), "curves": curves(tables)}
    names = list(dict.fromkeys(record["name"] for record in found["scores"] + found["curves"]))
    return {
        "tier": summary["tier"],
        "steps": summary["steps"],
        "runs": summary["runs"],
        "planned_runs": summary["planned_runs"],
        "missing": len(summary["missing"]),
        "warnings": summary["warnings"],
        "grids": {
            key: {part: grid[part] for part in ("environments", "algorithms", "capacities", "seeds")}
            for key, grid in summary["grids"].items()
        },
        "looks": looks(names, tables),
        **found,
        "sources": tables.sources(),
    }


def fragment(tiers: Sequence[dict[str, Any]]) -> str:
    """The data as an HTML element that holds JSON; `</` is written so that no text can close it."""
    text = json.dumps({"tiers": list(tiers)}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f'<script type="application/json" id="vaco-results">{text.replace("</", "<" + chr(92) + "/")}</script>\n'


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = Parser(prog="python -m vaco.report.tables.explorer", description="Data of the explorer.")
    parser.add_argument(
        "--tables", type=path_flag, nargs="+", required=True, help="folders build/results/<tier>/tables"
    )
    parser.add_argument("--out", type=path_flag, required=True, help="the HTML fragment to write")
    given = parser.parse_args(arguments)
    complete = [folder for folder in given.tables if all((folder / name).is_file() for name in NEEDED)]
    text = fragment([tier(Tables(folder)) for folder in complete])
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_command(main)
