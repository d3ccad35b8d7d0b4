"""The specification curve: VACO under every reading of a text that leaves choices open, against its opponents.

The study is the grid `readings` of a tier. Every reading stands beside runs of its opponents with the same settings,
where these concern every method: a difference is one of methods and not of a forgotten setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vaco.command import run_command
from vaco.errors import UserError
from vaco.report.figures import style
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption
from vaco.report.tables.hyperparameters import written
from vaco.report.tables.methods import Look, centred_label, look
from vaco.report.tables.power import compared
from vaco.report.tables.read import Tables

STUDY = "readings"
OWN = ("trigger", "delta", "ratio_cap")  # settings that no opponent reads
WORDS: Mapping[str, str] = {
    "filter": "filter compares with",
    "trigger": "trigger looks at",
    "delta": "δ",
    "ratio_cap": "cap of ρ",
    "trace_decay": "λ",
    "advantage_normalisation": "advantages by",
    "normaliser_start": "first statistics",
    "learning_rate_decay": "step size decays",
}
# What VACO's filter compares the policy with, by algorithm.
CENTRES = {"vaco": "π_T", "once+tv_total": "β", "once+tv_proximal": "π_T, by π/π_T"}


def pairs(methods: Mapping[str, Any], names: Sequence[str]) -> dict[str, list[str]]:
    """The opponents of every reading: those that agree with it in all settings but VACO's own.

    Args:
        methods: `methods` of `summary.json`: `algorithm` and `settings`, where these are not the default, of each name.
        names: the names of the grid.
    """
    common = {name: {k: v for k, v in methods[name]["settings"].items() if k not in OWN} for name in names}
    readings = [name for name in names if methods[name]["algorithm"] in CENTRES]
    others = [name for name in names if name not in readings]
    return {reading: [other for other in others if common[other] == common[reading]] for reading in readings}


def differences(scores: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Each reading minus each of its opponents, in units of the normalised score.

    Returns:
        A row a reading and opponent: `reading`, `opponent`, its `algorithm`, `difference` (mean over tasks of the
        difference of means over seeds), its 95 % interval `low` to `high` (Welch; NaN with one seed), `runs` (the
        seeds). Of a pair those seeds count that both have on every task; pairs without one are left out.
    """
    grid = tables.grid(STUDY)
    tasks = grid["environments"]
    own = scores[scores["seed"].isin(grid["seeds"]) & scores["lag"].isin(grid["capacities"])].dropna(subset=["score"])
    wide = own.pivot(index="seed", columns=["name", "env"], values="score")
    found = []
    for reading, opponents in pairs(tables.methods, grid["algorithms"]).items():
        for opponent in opponents:
            keys = [[(name, env) for env in tasks] for name in (reading, opponent)]
            both = wide.reindex(columns=keys[0] + keys[1]).dropna()
            if len(both):
                of = both.agg(["mean", "var", "size"]).T
                row = compared(of.loc[keys[0]], of.loc[keys[1]])
                row |= {"reading": reading, "opponent": opponent, "algorithm": tables.methods[opponent]["algorithm"]}
                found.append(row)
    columns = ["reading", "opponent", "algorithm", "difference", "low", "high", "runs"]
    return pd.DataFrame(found, columns=columns)


def choices(
    configs: Mapping[str, Mapping[str, Any]], methods: Mapping[str, Any], readings: Sequence[str]
) -> dict[str, dict[str, str]]:
    """The choices that distinguish the readings: for each the level of every reading, as text.

    Args:
        configs: by name, the settings its runs were trained with.
        methods: `methods` of `summary.json`.
        readings: the names.
    """
    found = {"filter": {name: CENTRES[methods[name]["algorithm"]] for name in readings}}
    for key in WORDS.keys() - found.keys():
        found[key] = {name: _level(key, configs[name][key]) for name in readings}
    return {key: found[key] for key in WORDS if len(set(found[key].values())) > 1}


def _level(key: str, value: Any) -> str:
    return "none" if key == "ratio_cap" and not value else written(value)


def draw(tables: Tables) -> Drawn:
    """Draw from `scores` and `configs`."""
    return draw_table(differences(tables.read("scores"), tables), tables)


def draw_table(table: pd.DataFrame, tables: Tables) -> Drawn:
    """Draw what `differences` found: above the differences, in order; below the choices of each reading.

    Raises:
        UserError: there is none.
    """
    algorithms = list(dict.fromkeys(table["algorithm"]))
    if not algorithms:
        raise UserError("no reading is finished on every task beside an opponent yet: train more of the tier's runs")
    panels_of = {one: table[table["algorithm"] == one].sort_values("difference") for one in algorithms}
    levels = choices(tables.json("configs"), tables.methods, list(dict.fromkeys(table["reading"])))
    lines = [(key, level) for key, of in levels.items() for level in sorted(set(of.values()))]
    figure = style.new_figure(2.0 + 0.115 * len(lines))
    panels = figure.subplots(
        2, len(algorithms), squeeze=False, sharex="col", sharey="row", height_ratios=(1.8, 0.115 * len(lines))
    )
    for (above, below), one in zip(panels.T, algorithms, strict=True):
        _differences(above, panels_of[one], look(one))
        _choices(below, panels_of[one]["reading"].tolist(), levels, lines)
        above.set_title(f"VACO minus {centred_label(one)}", loc="left")
        below.set_xlabel("readings, ordered by the difference")
    panels[0, 0].set_ylabel("difference of\nnormalised scores")
    capacity = ", ".join(f"K = {lag}" for lag in tables.grid(STUDY)["capacities"])
    text = caption.joined(
        f"VACO under every reading of the paper at {capacity}, minus an opponent with the same settings where these "
        f"concern every method: mean over tasks of the difference of mean scores{_intervals(table)} Below, the "
        "choices of each reading. Above the dashed line the reading is ahead.",
        counted(table, algorithms),
        caption.scale(tables.summary, STUDY),
        caption.normalisation(tables.summary),
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def _intervals(table: pd.DataFrame) -> str:
    """What of the intervals is drawn, as the end of a sentence and what follows it."""
    if table["runs"].max() < 2:
        return "; with one seed there is no interval, and a point stands for one run of either method on each task."
    return (
        ", with Welch's 95 % interval where both have two seeds, not corrected for the number of readings; where a "
        "point is filled, zero lies outside its interval."
    )


def counted(table: pd.DataFrame, algorithms: Sequence[str]) -> str:
    """How many readings are ahead, and how many beyond their interval where there is one, in a sentence."""
    said = []
    for one in algorithms:
        rows = table[table["algorithm"] == one]
        ahead, beyond = int((rows["difference"] > 0).sum()), int((rows["low"] > 0).sum())
        behind = int((rows["high"] < 0).sum())
        clear = (
            f", {beyond} of them beyond the interval, and {behind} lower beyond it" if rows["runs"].max() > 1 else ""
        )
        said.append(f"of {len(rows)} readings {ahead} score higher than {centred_label(one)}{clear}")
    return "O" + "; ".join(said)[1:] + "."


def _differences(axes: Axes, rows: pd.DataFrame, drawn: Look) -> None:
    x, y = np.arange(len(rows)), rows["difference"].to_numpy()
    axes.vlines(x, rows["low"], rows["high"], color=drawn.colour, linewidth=0.8)
    clear = ((rows["low"] > 0) | (rows["high"] < 0)).to_numpy()
    for chosen, face in ((clear, drawn.colour), (~clear, "white")):
        axes.plot(x[chosen], y[chosen], "o", markersize=3.2, markerfacecolor=face, markeredgecolor=drawn.colour)
    axes.axhline(0.0, color="0.25", linewidth=0.8, linestyle=(0, (2, 1)))


def _choices(
    axes: Axes, readings: Sequence[str], levels: Mapping[str, Mapping[str, str]], lines: Sequence[tuple[str, str]]
) -> None:
    """A row a level, a mark where a reading has it; every other choice on grey."""
    for rank, key in enumerate(levels):
        own = [index for index, (of, _) in enumerate(lines) if of == key]
        if rank % 2 == 0:
            axes.axhspan(own[0] - 0.5, own[-1] + 0.5, color="0.94", linewidth=0)
    for index, (key, level) in enumerate(lines):
        held = [x for x, reading in enumerate(readings) if levels[key][reading] == level]
        axes.plot(held, [index] * len(held), "s", markersize=2.4, color="0.25")
    axes.set_yticks(range(len(lines)), [f"{WORDS[key]} {level}" for key, level in lines], fontsize=5.8)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
