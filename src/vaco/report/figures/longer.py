"""Does the order of methods change with length? Final returns after a tier's steps, beside those of a shorter tier.

The tier has a grid `longer` beside its main one. A method of the same name and settings in the shorter tier stands
beside it, on the same task, at the same K and with the same seeds; one that the shorter tier lacks stands at the longer
length alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from vaco.command import run_command
from vaco.errors import UserError
from vaco.paths import path_flag
from vaco.report.figures import style
from vaco.report.figures.panels import count
from vaco.report.figures.product import Drawn
from vaco.report.tables import caption
from vaco.report.tables.methods import centred_label, look
from vaco.report.tables.read import MAIN, Tables
from vaco.report.tables.sidecar import product_parser, write_sidecar

STUDY = "longer"
KEYS = ["env", "name", "lag"]


def returns(tables: Tables, shorter: Tables | None) -> pd.DataFrame:
    """The final return of every finished run, at both lengths.

    Args:
        tables: of the longer tier.
        shorter: of the other, if there is one.

    Returns:
        A row a run: `env`, `name`, `algorithm`, `lag`, `seed`, `steps`, `final`.
    """
    cells = pd.DataFrame(
        [
            (env, name, lag)
            for grid in (tables.grid(MAIN), tables.grid(STUDY))
            for env in grid["environments"]
            for name in grid["algorithms"]
            for lag in grid["capacities"]
        ],
        columns=KEYS,
    )
    found = []
    for one in (shorter, tables):
        if one is not None:
            own = cells.merge(one.read("scores"), on=KEYS)
            alike = [name for name in own["name"].unique() if same(tables, one, name)]
            own = own[own["name"].isin(alike) & own["seed"].isin(tables.grid()["seeds"])]
            found.append(own.assign(steps=int(one.summary["steps"])))
    return pd.concat(found, ignore_index=True)[[*KEYS, "algorithm", "seed", "steps", "final"]]


def same(tables: Tables, other: Tables, name: str) -> bool:
    """Whether a name stands for the same algorithm with the same settings in both tiers."""
    return name in other.methods and all(
        tables.methods[name][key] == other.methods[name][key] for key in ("algorithm", "settings")
    )


def ends(runs: pd.DataFrame) -> pd.DataFrame:
    """The mean of every method at every length.

    Args:
        runs: as `returns` gives it.

    Returns:
        A row a task, method, K and length: `env`, `name`, `algorithm`, `lag`, `steps`, `mean` over seeds, `runs`.
    """
    of = runs.groupby([*KEYS, "algorithm", "steps"], sort=False)["final"].agg(mean="mean", runs="size")
    return of.reset_index()


def exchanged(table: pd.DataFrame) -> tuple[int, int]:
    """How many pairs of methods stand in the other order at the other length, and of how many.

    Args:
        table: as `ends` gives it; pairs count that have runs at both lengths, by task and K.
    """
    changed = counted = 0
    for _, panel in table.groupby(["env", "lag"]):
        wide = panel.pivot_table(index="name", columns="steps", values="mean").dropna()
        if wide.shape[1] < 2:
            continue
        for one, other in combinations(wide.to_numpy(), 2):
            before, after = one - other
            counted += 1
            changed += bool(before * after < 0)
    return changed, counted


def draw(tables: Tables, shorter: Tables | None = None) -> Drawn:
    """Draw from `scores` of both tiers, a row a K and a column a task.

    Raises:
        UserError: no run of the longer tier is finished.
    """
    runs, length = returns(tables, shorter), int(tables.summary["steps"])
    done = runs[runs["steps"] == length]
    if done.empty:
        raise UserError("no run of this length is finished yet: train more of the tier's runs")
    runs = runs.merge(done[KEYS].drop_duplicates(), on=KEYS)
    table = ends(runs)
    drawn = table[table["steps"] == length]
    tasks = [env for env in tables.grid()["environments"] if env in set(drawn["env"])]
    capacities = sorted(drawn["lag"].unique())
    steps = sorted(table["steps"].unique())
    figure = style.new_figure(0.5 + 1.9 * len(capacities))
    panels = figure.subplots(len(capacities), len(tasks), squeeze=False, sharex=True)
    for row, lag in zip(panels, capacities, strict=True):
        for axes, env in zip(row, tasks, strict=True):
            _panel(axes, runs[(runs["env"] == env) & (runs["lag"] == lag)], steps)
            axes.set_title(f"{env}, K = {lag}", loc="left")
            count(axes, drawn[(drawn["env"] == env) & (drawn["lag"] == lag)])
        row[0].set_ylabel("final return")
    names = dict.fromkeys(drawn["algorithm"])
    handles = {label: one for axes in figure.axes for one, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    order = [label for label in map(centred_label, names) if label in handles]
    figure.legend([handles[label] for label in order], order, loc="outside lower center", ncols=4, frameon=False)
    changed, counted = exchanged(table)
    beside = (
        f"On the left the final returns of the same settings after {steps[0]:,} steps, of tier "
        f"'{shorter.summary['tier']}' and the same seeds: other runs with another schedule of the step size, not "
        f"earlier points of the same ones. Of {counted} pairs of methods on a task at a K, the means of {changed} "
        f"stand in the other order after {steps[-1]:,}; over few seeds such an exchange can be chance."
        if shorter is not None and len(steps) > 1
        else ""
    )
    text = caption.joined(
        "Final returns of the stochastic policy, not normalised: small dots are runs, large ones means over seeds. "
        "Settings are those of the shorter length, where they were chosen for the methods that stand there.",
        beside,
        caption.scale(tables.summary),
        caption.studies(tables.summary, STUDY),
        "n counts seeds of the longer runs.",
        caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def _panel(axes: Axes, runs: pd.DataFrame, steps: Sequence[int]) -> None:
    """Lines of means from one length to the other, with the runs beside them."""
    names = list(dict.fromkeys(runs["name"]))
    for rank, name in enumerate(names):
        own = runs[runs["name"] == name]
        how = look(str(own["algorithm"].iloc[0]))
        shift = 0.05 * (rank - (len(names) - 1) / 2)
        at = own["steps"].map({length: float(place) for place, length in enumerate(steps)}) + shift
        axes.plot(at, own["final"], "o", color=how.colour, markersize=2.2, alpha=0.5, markeredgewidth=0)
        means = own.groupby(at)["final"].mean()
        axes.plot(means.index, means, label=centred_label(str(own["algorithm"].iloc[0])), **how.line, **how.point)
    axes.set_xticks(range(len(steps)), [f"{length / 1e6:g}M steps" for length in steps])
    axes.set_xlim(-0.3, len(steps) - 0.7)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure; `--shorter` is a table of the tier that stands beside it."""
    parser = product_parser(__doc__)
    parser.add_argument("--shorter", type=path_flag, help="build/results/<tier>/tables/scores.parquet of another tier")
    given = parser.parse_args(arguments)
    tables = Tables(given.tables)
    shorter: Path | None = given.shorter
    other = None if shorter is None else Tables(shorter.parent)
    drawn = draw(tables, other)
    for path in other.used if other is not None else ():
        tables.remember(path)
    style.save(drawn.figure, given.out)
    write_sidecar(tables, given.out, drawn.caption)
    return 0


if __name__ == "__main__":
    run_command(main)
