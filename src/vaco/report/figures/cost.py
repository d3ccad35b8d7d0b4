"""What alignment costs: time of a phase for none, once and continuous, beside what it gives.

Reviewer question 2. Two measurements of the cost stand side by side: that of the study's own runs, and the benchmark,
whose workers took turns on one core. The runs were made hours apart on a machine that did other work, so seconds of
one run cannot be compared with seconds of another. Collecting is the same work for every method, so each phase's time
is divided by what the same phase spent collecting. Only the study's first task is drawn: time per phase depends on it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from vaco.command import run_command
from vaco.paths import path_flag
from vaco.report.figures import style
from vaco.report.figures.factorial import STUDY, places
from vaco.report.figures.panels import NO_SEED, count
from vaco.report.figures.product import Drawn
from vaco.report.tables import caption, methods
from vaco.report.tables.read import Tables
from vaco.report.tables.sidecar import product_parser, write_sidecar

BENCHMARK = {"color": "black", "marker": "D", "markersize": 5.5, "markerfacecolor": "none", "markeredgewidth": 1.0}
PLAIN = "ppo"
ALIGNMENTS = ("none", "once", "continuous")
TICKS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def clean_measurement(tables: Tables, path: Path | None) -> dict[str, float]:
    """Time of aligning over time of collecting in the benchmark, by alignment; empty without a benchmark.

    Args:
        tables: remembers the file as a source.
        path: `benchmarks/results/throughput.json`.
    """
    if path is None or not path.is_file():
        return {}
    tables.remember(path)
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    found, collect = content.get("align_ms", {}), float(content.get("phase_ms", {}).get("collect", math.nan))
    return {name: float(found[name]) / collect for name in ALIGNMENTS if name in found}


def draw(tables: Tables, benchmark: Path | None = None) -> Drawn:
    """Draw from `runs` and `aggregates`."""
    grid = tables.grid(STUDY)
    lag, names = grid["capacities"][0], grid["algorithms"]
    spot = places(names, tables.methods)
    runs = tables.read("runs")
    same = runs.loc[(runs["name"] == PLAIN) & (runs["env"] == grid["environments"][0]), "optimise_relative"]
    chosen = (runs["lag"] == lag) & runs["name"].isin(names) & runs["seed"].isin(grid["seeds"])
    runs = runs[chosen & (runs["env"] == grid["environments"][0])]
    aggregates = tables.read("aggregates")
    scores = aggregates[(aggregates["grid"] == STUDY) & (aggregates["metric"] == "iqm") & (aggregates["lag"] == lag)]
    cost = runs.groupby("name")[["align_relative", "optimise_relative"]].median()
    counted = runs.groupby("name").size().rename("runs").reset_index()
    rows = list(dict.fromkeys(place.row for place in spot.values()))
    rules = list(dict.fromkeys(place.column for place in spot.values()))
    figure = style.new_figure(2.75)
    aligning, optimising, worth = figure.subplots(1, 3)
    for axes, column in ((aligning, "align_relative"), (optimising, "optimise_relative")):
        for name in cost.index:
            place = spot[name]
            colour, marker = methods.filter_look(place.column)
            x = rows.index(place.row) + 0.16 * (rules.index(place.column) - (len(rules) - 1) / 2)
            values = runs.loc[runs["name"] == name, column]
            axes.vlines(x, values.min(), values.max(), color=colour, linewidth=0.8)
            axes.plot(
                [x], [cost.loc[name, column]], color=colour, marker=marker, markersize=4.8, markeredgecolor="white"
            )
        axes.set_xticks(range(len(rows)), [row.replace("continuous", "contin-\nuous") for row in rows])
        axes.set_xlim(-0.5, len(rows) - 0.5)
        count(axes, counted)
    clean = clean_measurement(tables, benchmark)
    for align, relative in clean.items():
        if align in rows:
            aligning.plot([rows.index(align) + 0.42], [relative], linestyle="none", **BENCHMARK)
    aligning.set_yscale("log")
    aligning.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    aligning.yaxis.set_minor_locator(NullLocator())
    low, high = aligning.get_ylim()
    aligning.set_ylim(min(low, 0.005), max(high, 0.3))
    aligning.set_title("Aligning", loc="left")
    optimising.set_title("Aligning and updating", loc="left")
    aligning.set_ylabel("time, in units of collecting")
    optimising.set_ylim(bottom=0.0)
    _worth(worth, scores, cost, spot)
    figure.legend(handles=_key(rules, bool(clean)), loc="outside lower center", ncols=len(rules) + 1, frameon=False)
    return Drawn(figure, _caption(tables, scores, clean, lag, same))


def _worth(axes: Axes, scores: pd.DataFrame, cost: pd.DataFrame, spot: Mapping[str, Any]) -> None:
    """Score over all tasks against the whole cost of a phase."""
    sizes = {"none": "none", "once": "full", "continuous": "left"}
    for row in scores.to_dict("records"):
        if row["name"] not in cost.index:
            continue
        place = spot[row["name"]]
        colour, marker = methods.filter_look(place.column)
        x = float(cost.loc[row["name"], "optimise_relative"])
        fill = sizes.get(place.row, "full")
        axes.vlines(x, row["low"], row["high"], color=colour, linewidth=0.9)
        axes.plot(
            [x], [row["point"]], color=colour, marker=marker, fillstyle=fill, markersize=5, markerfacecoloralt="white"
        )
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("aligning and updating / collecting")
    axes.set_ylabel("normalised score (IQM)")
    axes.set_title("What it gives", loc="left")
    count(axes, scores, nothing=NO_SEED)


def _key(rules: Sequence[str], clean: bool) -> list[Line2D]:
    """One mark a filter, and the benchmark's."""
    found = []
    for rule in rules:
        colour, marker = methods.filter_look(rule)
        found.append(
            Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=5, label=rule.replace("_", " "))
        )
    if clean:
        found.append(Line2D([], [], linestyle="none", label="benchmark", **BENCHMARK))  # type: ignore[arg-type]
    return found


def _caption(tables: Tables, scores: pd.DataFrame, clean: Mapping[str, float], lag: int, same: pd.Series) -> str:
    measured = ", ".join(f"{align} {relative:.3f}" for align, relative in clean.items())
    return caption.joined(
        f"What alignment costs and what it gives at K = {lag}. Left: time of a phase that goes into estimating "
        f"advantages, on {tables.grid(STUDY)['environments'][0]}, as a multiple of the time that the same phase spent "
        "collecting, which is the same work for every method; logarithmic. Middle: the same with all gradient steps. "
        "Each mark is the median over runs of the median over phases of one method, with a hair line from the least to "
        "the greatest run. The runs were made at different hours on a machine that did other work, which slows "
        "collecting and updating, but not always alike:",
        f"all {len(same)} runs of PPO on this task, whatever their K, did the same work, and the middle panel's "
        f"ratio goes from {same.min():.2f} to {same.max():.2f} among them."
        if len(same) > 1
        else "how much, the runs so far do not say.",
        f"Diamonds: the benchmark, in which processes took turns on one core: {measured}." if measured else "",
        "No alignment still computes GAE, by the same recursion. Right: interquartile mean of the normalised score "
        "against the cost; open marks: no alignment, full: once (and its control), half full: continuous. "
        "Continuous alignment, and the control, take whole trajectories as minibatches.",
        caption.scale(tables.summary, STUDY),
        caption.stratified(scores),
        caption.trimming(scores),
        "n counts runs on the left and in the middle, and seeds finished on every task on the right.",
        caption.caveats(tables.summary),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure; `--benchmark FILE` adds the clean measurement."""
    parser = product_parser(__doc__)
    parser.add_argument("--benchmark", type=path_flag, help="benchmarks/results/throughput.json")
    given = parser.parse_args(arguments)
    tables = Tables(given.tables)
    drawn = draw(tables, given.benchmark)
    style.save(drawn.figure, given.out)
    write_sidecar(tables, given.out, drawn.caption)
    return 0


if __name__ == "__main__":
    run_command(main)
