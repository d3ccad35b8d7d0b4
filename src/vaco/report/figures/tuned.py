"""Every method at its own best step: scores beside those at nominal settings, and VACO's readings minus each opponent.

The tier has a grid `nominal`, methods as they come, and grids of the same methods with the settings that another tier's
runs chose for a K. Scores are means over tasks of means over seeds; an interval of such a mean, or of the difference of
two, is Welch's over the seeds of every task (`vaco.report.tables.power`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from vaco.command import run_command
from vaco.errors import UserError
from vaco.report.figures import style
from vaco.report.figures.panels import count, with_two_intervals, zero_line
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption
from vaco.report.tables.methods import centred_label, look
from vaco.report.tables.power import CORRECTED, compared, with_corrected
from vaco.report.tables.read import MAIN, Tables

STUDY = "nominal"
READINGS = ("vaco", "once+tv_total")
"""VACO's filter around π_T and around β: the two readings that opponents are compared with."""


def cells(scores: pd.DataFrame, tables: Tables) -> dict[tuple[str, int, bool], pd.DataFrame]:
    """What every method scored, where it has a run on every task.

    Args:
        scores: one row a run: `env`, `name`, `lag`, `seed`, `score`.
        tables: for the tier's grids and methods.

    Returns:
        By algorithm, K, and whether its settings were tuned: a row a task with `mean`, `var` and `size` over seeds.
    """
    found = {}
    nominal = tables.grid(STUDY)
    wanted = {tables.methods[name]["algorithm"] for name in nominal["algorithms"]}
    for grid in tables.summary["grids"].values():
        tuned = grid != nominal
        for name in grid["algorithms"]:
            algorithm = tables.methods[name]["algorithm"]
            for lag in grid["capacities"]:
                if algorithm not in wanted or lag not in nominal["capacities"]:
                    continue
                own = scores[(scores["name"] == name) & (scores["lag"] == lag) & scores["seed"].isin(grid["seeds"])]
                of = own.dropna(subset=["score"]).groupby("env")["score"].agg(["mean", "var", "size"])
                if set(of.index) >= set(grid["environments"]):
                    found[algorithm, lag, tuned] = of.loc[list(grid["environments"])]
    return found


def standings(made: Mapping[tuple[str, int, bool], pd.DataFrame]) -> pd.DataFrame:
    """The mean over tasks of every method, with its interval.

    Returns:
        A row an entry of `cells`: `algorithm`, `lag`, `tuned`, `point`, `low`, `high` (95 %; NaN with one
        seed), `runs`.
    """
    rows = []
    for (algorithm, lag, tuned), of in made.items():
        zero = of.assign(mean=0.0, var=0.0)
        row = compared(of, zero)
        ends = {"point": row["difference"], "low": row["low"], "high": row["high"], "runs": row["runs"]}
        rows.append({"algorithm": algorithm, "lag": lag, "tuned": tuned} | ends)
    return pd.DataFrame(rows, columns=["algorithm", "lag", "tuned", "point", "low", "high", "runs"])


def differences(made: Mapping[tuple[str, int, bool], pd.DataFrame]) -> pd.DataFrame:
    """Each tuned reading of VACO minus each tuned opponent.

    Returns:
        A row a pair and K: `reading`, `opponent`, `lag`, `difference`, `low`, `high` (95 %), `wide_low`, `wide_high`,
        the same with Bonferroni's correction for the number of rows, and `runs`, the smaller number of seeds.
    """
    pairs = [
        (reading, algorithm, lag)
        for (algorithm, lag, tuned) in made
        for reading in READINGS
        if tuned and algorithm not in READINGS and (reading, lag, True) in made
    ]
    rows = []
    for reading, opponent, lag in pairs:
        found = with_corrected(made[reading, lag, True], made[opponent, lag, True], len(pairs))
        rows.append({"reading": reading, "opponent": opponent, "lag": lag} | found)
    return pd.DataFrame(rows, columns=["reading", "opponent", "lag", *CORRECTED])


def draw(tables: Tables) -> Drawn:
    """Draw from `scores`.

    Raises:
        UserError: no method is finished on every task with its tuned settings.
    """
    made = cells(tables.read("scores"), tables)
    table, apart = standings(made), differences(made)
    if not table["tuned"].any():
        raise UserError("no method with tuned settings is finished on every task yet: train more of the tier's runs")
    capacities = sorted(table[table["tuned"]]["lag"].unique())
    figure = style.new_figure(0.5 + 1.75 * len(capacities))
    panels = figure.subplots(len(capacities), 2, squeeze=False, sharex="col", width_ratios=(1.0, 1.0))
    for (left, right), lag in zip(panels, capacities, strict=True):
        own = table[table["lag"] == lag]
        order = _order(own)
        _scores(left, own, order)
        against = apart[apart["lag"] == lag]
        _differences(right, against, [one for one in order if one in set(against["opponent"])])
        left.set_title(f"K = {lag}", loc="left")
        right.set_title(f"VACO minus the method, K = {lag}", loc="left")
        count(left, own[own["tuned"]])
    panels[-1, 0].set_xlabel("normalised score, mean over tasks")
    panels[-1, 1].set_xlabel("difference of normalised scores")
    handles, labels = panels[0, 1].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower right", ncols=2, frameon=False)
    text = caption.joined(
        "Every method at the value of its own knob that scored highest on other seeds (filled) and at nominal settings "
        "(hollow, other seeds): mean over tasks of mean scores, with 95 % intervals over seeds. On the right, VACO in "
        f"both readings minus each method, all tuned: thick 95 %, thin the same corrected for the {len(apart)} "
        "comparisons of this figure (Bonferroni). Right of the dashed line VACO is ahead.",
        said(apart),
        caption.scale(tables.summary),
        caption.studies(tables.summary, *_further(tables)),
        caption.normalisation(tables.summary),
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def _further(tables: Tables) -> list[str]:
    """The studies with scores of this figure: those at a K of the nominal one, itself last."""
    capacities = tables.grid(STUDY)["capacities"]
    grids = [name for name, grid in tables.summary["grids"].items() if set(grid["capacities"]) <= set(capacities)]
    return [*(name for name in grids if name not in (MAIN, STUDY)), STUDY]


def said(apart: pd.DataFrame) -> str:
    """How many comparisons each reading wins and loses, beyond the corrected interval, in a sentence."""
    parts = []
    for reading, rows in apart.groupby("reading", sort=False):
        ahead, behind = int((rows["wide_low"] > 0).sum()), int((rows["wide_high"] < 0).sum())
        counts = f"ahead of {ahead} of {len(rows)} beyond the corrected interval and behind {behind}"
        parts.append(f"{centred_label(str(reading))} is {counts}")
    return f"{'; '.join(parts)}." if parts else ""


def _order(own: pd.DataFrame) -> list[str]:
    """Algorithms, the highest tuned score first; those without one at the end."""
    tuned = own[own["tuned"]].sort_values("point", ascending=False)["algorithm"].tolist()
    return [*tuned, *(one for one in own["algorithm"] if one not in tuned)]


def _scores(axes: Axes, own: pd.DataFrame, order: Sequence[str]) -> None:
    for kind, rows in own.groupby("tuned"):
        size, width, shift = (4.2, 1.3, 0.0) if kind else (3.2, 0.6, 0.28)
        for algorithm, row in rows.set_index("algorithm")[["point", "low", "high"]].iterrows():
            colour, y = look(str(algorithm)).colour, order.index(str(algorithm)) + shift
            face: dict[str, Any] = {"markerfacecolor": colour if kind else "white", "markeredgecolor": colour}
            axes.hlines(y, row["low"], row["high"], color=colour, linewidth=width)
            axes.plot([row["point"]], [y], "o", markersize=size, **face)
    axes.set_yticks(range(len(order)), [centred_label(one) for one in order])
    axes.set_ylim(len(order) - 0.4, -0.6)


def _differences(axes: Axes, rows: pd.DataFrame, order: Sequence[str]) -> None:
    for shift, reading in zip((-0.13, 0.13), READINGS, strict=True):
        drawn, of = look(reading), rows[rows["reading"] == reading]
        y = [order.index(one) + shift for one in of["opponent"]]
        with_two_intervals(axes, of, y, drawn, label=centred_label(reading))
    zero_line(axes)
    axes.set_yticks(range(len(order)), [centred_label(one) for one in order])
    axes.set_ylim(len(order) - 0.4, -0.6)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
