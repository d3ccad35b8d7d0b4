"""Is simulated asynchrony a fair stand-in for the real one? Ages, lags and scores under every source of staleness.

The tier has a grid `real` of runs with actors in processes of their own, and grids of the same algorithms under
simulated schedules. Scores of a simulated source are subtracted from those of each real one; an interval is Welch's
over the seeds of every task (`vaco.report.tables.power`), and with Bonferroni's correction for the comparisons shown.
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
from vaco.report.figures.panels import with_two_intervals, zero_line
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import caption
from vaco.report.tables.methods import centred_label, look
from vaco.report.tables.power import CORRECTED, with_corrected
from vaco.report.tables.read import MAIN, Tables

STUDY = "real"
REFERENCE = "unit"
"""The grid of the runs that scores are normalised by; none of the sources."""
COLUMNS = {
    "age_mean": "mean age\n(updates)",
    "backward_lag": "backward lag",
    "forward_lag": "forward lag",
    "tv_after": "TV to β, after",
    "score": "normalised score",
}


def source(settings: Mapping[str, Any], lag: int) -> str:
    """What makes the data old, in words that fit beside an axis.

    >>> source({"schedule": "straggler:0.25:4:1"}, 5), source({"actors": 4, "slowness": [4]}, 1)
    ('simulated straggler', 'real, a straggler')
    >>> source({}, 1), source({}, 3), source({"schedule": "fifo:2"}, 3)
    ('synchronous', 'uniform, K = 3', 'queue of 2')
    """
    if settings.get("actors"):
        return "real, a straggler" if settings.get("slowness") else "real, alike"
    kind, _, rest = str(settings.get("schedule", "uniform")).partition(":")
    words = {
        "uniform": f"uniform, K = {lag}" if lag > 1 else "synchronous",
        "fifo": f"queue of {rest}",
        "straggler": "simulated straggler",
    }
    return words.get(kind, kind)


def runs(tables: Tables) -> pd.DataFrame:
    """One row a finished run of the sources.

    Returns:
        `source`, `algorithm`, `env`, `seed`, `score`, and means over training of what `COLUMNS` names, with `age_min`
        and `age_max`; real sources first, then those of the main grid.
    """
    keys, measured = ["env", "name", "lag", "seed"], [*list(COLUMNS)[:-1], "age_min", "age_max"]
    means = tables.read("diagnostics").groupby(keys, as_index=False)[measured].mean()
    grids = dict(tables.summary["grids"])
    order = [grids.pop(STUDY), grids.pop(MAIN), *(grids[name] for name in grids if name != REFERENCE)]
    cells = [
        (env, name, lag, seed, source(tables.methods[name]["settings"], lag), tables.methods[name]["algorithm"])
        for grid in order
        for name in grid["algorithms"]
        for lag in grid["capacities"]
        for env in grid["environments"]
        for seed in grid["seeds"]
    ]
    wanted = pd.DataFrame(cells, columns=[*keys, "source", "algorithm"])
    found = wanted.merge(tables.read("scores")[[*keys, "score"]], on=keys).merge(means, on=keys)
    return found[["source", "algorithm", "env", "seed", "score", *measured]]


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Scores under each simulated source minus those under each real one, by algorithm, mean over tasks.

    Args:
        table: as `runs` gives it.

    Returns:
        A row a pair and algorithm that have runs on the same tasks: `real`, `source`, `algorithm`, `difference`,
        `low`, `high` (95 %), `wide_low`, `wide_high` (the same, corrected for the number of rows), and `runs`.
    """
    cells = table.dropna(subset=["score"]).groupby(["source", "algorithm", "env"], sort=False)["score"]
    of = cells.agg(["mean", "var", "size"])
    made = {key: rows.droplevel([0, 1]) for key, rows in of.groupby(level=[0, 1], sort=False)}
    names = [(str(key[0]), str(key[1])) for key in made]
    pairs = [
        (real, simulated, algorithm)
        for real, algorithm in names
        for simulated, other in names
        if real.startswith("real") and not simulated.startswith("real") and other == algorithm
        if set(made[real, algorithm].index) == set(made[simulated, other].index)
    ]
    rows = []
    for real, simulated, algorithm in pairs:
        y = made[real, algorithm]
        x = made[simulated, algorithm].loc[y.index]
        rows.append({"real": real, "source": simulated, "algorithm": algorithm} | with_corrected(x, y, len(pairs)))
    return pd.DataFrame(rows, columns=["real", "source", "algorithm", *CORRECTED])


def draw(tables: Tables) -> Drawn:
    """Draw from `scores` and `diagnostics`.

    Raises:
        UserError: no run with actors is finished.
    """
    table = runs(tables)
    if not table["source"].str.startswith("real").any():
        raise UserError("no run with actors is finished yet: train more of the tier's runs")
    apart = differences(table)
    sources, algorithms = list(table["source"].unique()), list(table["algorithm"].unique())
    environments = [env for env in tables.grid()["environments"] if env in set(table["env"])]
    figure = style.new_figure(1.9 * len(environments) + 2.4)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.9 * len(environments), 1.9))[:, 0]
    panels = above.subplots(len(environments), len(COLUMNS), squeeze=False, sharey=True, sharex="col")
    for row, env in zip(panels, environments, strict=True):
        for axes, column in zip(row, COLUMNS, strict=True):
            _values(axes, table[table["env"] == env], column, sources, algorithms)
        row[0].set_title(env, loc="left")
    for axes, label in zip(panels[-1], COLUMNS.values(), strict=True):
        axes.set_xlabel(label)
    simulated = [one for one in sources if not one.startswith("real")]
    reals = [one for one in sources if one.startswith("real")]
    for axes, real in zip(below.subplots(1, len(reals), squeeze=False, sharey=True)[0], reals, strict=True):
        _differences(axes, apart[apart["real"] == real], simulated, algorithms)
        axes.set_title(f"minus {real}", loc="left")
        axes.set_xlabel("difference of normalised scores")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    below.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    text = caption.joined(
        "Real asynchrony, four actors in processes of their own, alike or one of them four times slower, beside what "
        "may stand for it: the paper's uniform buffer, a queue of constant length, a simulated straggler. Points are "
        "means over training and seeds; hair lines of the age reach from the least to the greatest age in a batch, "
        "all others from the least to the greatest run. Below, scores under each simulated source minus those under "
        "each real one, means over tasks: thick 95 % intervals over seeds, thin the same corrected for the "
        f"{len(apart)} comparisons shown (Bonferroni), which may reach beyond the panel.",
        said_of_lags(relative_lag(table)),
        said(apart),
        f"n = {caption.between(int(apart['runs'].min()), int(apart['runs'].max()))} seeds." if len(apart) else "",
        caption.scale(tables.summary),
        caption.normalisation(tables.summary),
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def said(apart: pd.DataFrame) -> str:
    """How many differences are beyond their corrected interval, and how large they are, in a sentence."""
    if apart.empty:
        return ""
    beyond = int(((apart["wide_low"] > 0) | (apart["wide_high"] < 0)).sum())
    middle, most = apart["difference"].abs().median(), apart["difference"].abs().max()
    reach = ((apart["high"] - apart["low"]) / 2).median()
    return (
        f"{beyond} of {len(apart)} differences are beyond the corrected interval; their sizes are {middle:.2f} in the "
        f"median and {most:.2f} at most, where half an uncorrected interval is {reach:.2f} in the median."
    )


def relative_lag(table: pd.DataFrame) -> pd.DataFrame:
    """How large the backward lag is under each simulated source, relative to each real one.

    Args:
        table: as `runs` gives it.

    Returns:
        A row a simulated source and a column a real one: the mean, over algorithms and tasks that both have, of the
        ratio of mean backward lags over seeds.
    """
    lags = table.groupby(["source", "algorithm", "env"], sort=False)["backward_lag"].mean().unstack("source")
    real = [name for name in lags if str(name).startswith("real")]
    simulated = [name for name in lags if name not in real]
    return pd.DataFrame({name: lags[simulated].div(lags[name], axis=0).mean() for name in real}, index=simulated)


def said_of_lags(ratios: pd.DataFrame) -> str:
    """The same in a sentence for each real source."""
    parts = []
    for real, column in ratios.items():
        words = "; ".join(f"{name}, {ratio:.2f}" for name, ratio in column.dropna().items())
        parts.append(f"Backward lag relative to that of '{real}': {words}.")
    return " ".join(parts)


def _places(axes: Axes, rows: Sequence[str], algorithms: Sequence[str]) -> dict[tuple[str, str], float]:
    """Where each algorithm under each source is drawn; the axis is labelled."""
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    shifts = np.linspace(-0.25, 0.25, len(algorithms))
    return {(row, one): y + shift for y, row in enumerate(rows) for one, shift in zip(algorithms, shifts, strict=True)}


def _values(
    axes: Axes, table: pd.DataFrame, column: str, sources: Sequence[str], algorithms: Sequence[str]
) -> None:  # fmt: skip
    places = _places(axes, sources, algorithms)
    axes.margins(x=0.12)
    for algorithm in algorithms:
        drawn = look(algorithm)
        for source_, rows in table[table["algorithm"] == algorithm].groupby("source", sort=False):
            y, values = places[str(source_), algorithm], rows[column].dropna()
            if values.empty:
                continue
            low, high = values.min(), values.max()
            if column == "age_mean":
                low, high = rows["age_min"].mean(), rows["age_max"].mean()
            axes.hlines(y, low, high, color=drawn.colour, linewidth=0.6)
            marker: dict[str, Any] = drawn.point | {"markersize": 3.6}
            label = centred_label(algorithm) if source_ == sources[0] else None
            axes.plot([values.mean()], [y], linestyle="none", color=drawn.colour, label=label, **marker)


def _differences(axes: Axes, rows: pd.DataFrame, simulated: Sequence[str], algorithms: Sequence[str]) -> None:
    places = _places(axes, simulated, algorithms)
    for algorithm in algorithms:
        drawn, of = look(algorithm), rows[rows["algorithm"] == algorithm]
        y = [places[one, algorithm] for one in of["source"]]
        with_two_intervals(axes, of, y, drawn)
    zero_line(axes)
    # With few seeds a corrected interval is so wide that nothing else could be seen.
    reach = 1.15 * np.nanmax(np.abs(rows[["low", "high", "difference"]].to_numpy()), initial=0.1)
    axes.set_xlim(-reach, reach)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
