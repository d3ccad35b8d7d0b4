"""Sensitivity: VACO against its threshold δ beside PPO against its clip range ε at the same values, and the trigger.

Reviewer question 3. How often the trigger fires is the share of minibatches, and how often it flips the share of pairs
of consecutive minibatches of which one fired and the other did not, both recorded by the learner in every phase. Both
depend on when in a phase it fires first, which it cannot do at once. The share of firing minibatches that are followed
by a silent one, `trigger_stops` of `vaco.report.tables.facts`, does not; a trigger without memory has there what it is
silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from vaco.command import run_command
from vaco.report.figures import style
from vaco.report.figures.against import Family, estimates, families, from_zero, logarithmic, runs
from vaco.report.figures.panels import count
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption, methods
from vaco.report.tables.read import Tables

STUDY = "sensitivity"
SETTING = {"vaco": "delta", "ppo": "clip"}
SYMBOLS = {"vaco": "δ", "ppo": "ε"}
DEFAULT = 0.2
ROWS = ("final return", "gradients dropped\n(share)", "trigger of VACO\n(share)")


def thresholds(tables: Tables) -> dict[str, float]:
    """The value of δ or ε behind every name of the study; a plain algorithm has the default."""
    found = {}
    for name in tables.grid(STUDY)["algorithms"]:
        method = tables.methods[name]
        found[name] = float(method["settings"].get(SETTING[method["algorithm"]], DEFAULT))
    return found


def draw(tables: Tables) -> Drawn:
    """Draw a column a task from `task_scores` and `runs`."""
    grid = tables.grid(STUDY)
    lag, values = grid["capacities"][0], thresholds(tables)
    groups = families(grid["algorithms"], values, tables.methods)
    scores = tables.read("task_scores")
    scores = scores[(scores["grid"] == STUDY) & (scores["metric"] == "final") & (scores["lag"] == lag)]
    table = tables.read("runs")
    table = table[(table["lag"] == lag) & table["seed"].isin(grid["seeds"]) & table["name"].isin(list(values))]
    table = table.assign(dropped=1.0 - table["kept_fraction"])
    figure = style.new_figure(5.4)
    panels = figure.subplots(len(ROWS), len(grid["environments"]), squeeze=False, sharex=True)
    for column, env in enumerate(grid["environments"]):
        _column([row[column] for row in panels], scores[scores["env"] == env], table[table["env"] == env], groups)
        panels[0][column].set_title(env, loc="left")
        panels[-1][column].set_xlabel("threshold δ of VACO, clip range ε of PPO")
        logarithmic(panels[0][column], sorted(set(values.values())))
    for row, label in zip(panels, ROWS, strict=True):
        row[0].set_ylabel(label)
    figure.align_ylabels()
    figure.legend(handles=_key(groups), loc="outside lower center", ncols=5, frameon=False)
    text = caption.joined(
        f"Sensitivity to the threshold δ of VACO and to the clip range ε of PPO at the same values, K = {lag}, a "
        "column a task; δ is compared with the mean of |ρ − ρ_T| over a minibatch, ε with |ρ − 1| of every sample, so "
        "equal values do not mean steps of equal size. Top: final return, not normalised, mean over seeds. Middle: "
        "share of samples whose policy gradient was dropped, mean over training. Bottom: share of minibatches in which "
        "VACO's trigger fired, share of pairs of consecutive minibatches between which it flipped, and share of the "
        "minibatches in which it fired that were followed by one in which it did not, over all phases of training. A "
        "trigger without memory that fires in a share p would be silent after a share 1 − p of its firings; "
        "consecutive minibatches differ, so noise of the statistic is among the flips. Middle and bottom: mean over "
        "runs, hair lines from the least to the greatest run. The grey line at 0.2 marks the default of both.",
        caption.scale(tables.summary, STUDY),
        caption.over_seeds(scores, drawn="bars"),
        "n counts seeds.",
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def _column(panels: Sequence[Axes], scores: pd.DataFrame, table: pd.DataFrame, groups: Sequence[Family]) -> None:
    """The three panels of a task."""
    returns, dropped, trigger = panels
    for axes in panels:
        axes.axvline(DEFAULT, color="0.75", linewidth=0.8, zorder=1)
    for rank, family in enumerate(groups):
        estimates(returns, scores, family, rank)
        runs(dropped, table, "dropped", family, rank)
    count(returns, scores)
    count(dropped, table.groupby("name").size().rename("runs").reset_index())
    from_zero(dropped)
    drawn = pd.DataFrame()
    for family in groups:
        if family.look is methods.LOOKS["vaco"]:
            drawn = runs(trigger, table, "trigger_fraction", family, 0)
            for column, changes in _FLIPS.items():
                runs(trigger, table, column, family, 1, **changes)
    count(trigger, drawn)
    trigger.set_ylim(-0.03, 1.03)


_FLIPS: Mapping[str, Mapping[str, object]] = {
    "trigger_flips": {"color": "black", "marker": "D", "linewidth": 1.3, "linestyle": methods.SOLID, "markersize": 4.2},
    "trigger_stops": {
        "color": "0.45",
        "marker": "v",
        "linewidth": 1.3,
        "linestyle": (0, (2, 1)),
        "markersize": 4.8,
    },
}


def _key(groups: Sequence[Family]) -> list[Line2D]:
    """What the lines are, for the legend below the panels."""
    found = []
    for family in groups:
        algorithm = next(key for key, look in methods.LOOKS.items() if look is family.look)
        label = f"{family.look.label} against {SYMBOLS[algorithm]}" + (", trigger fires" if algorithm == "vaco" else "")
        found.append(Line2D([], [], **family.look.line, **family.look.point, label=label))
    names = {"trigger_flips": "trigger flips", "trigger_stops": "silent after firing"}
    for column, label in names.items():
        found.append(Line2D([], [], **_FLIPS[column], label=label))  # type: ignore[arg-type]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
