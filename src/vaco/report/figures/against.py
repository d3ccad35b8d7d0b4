"""Panels of a study: estimates, or values of single runs, against a setting on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from vaco.report.tables.methods import LOOKS, Look

SHIFT = 1.025
"""Factor by which neighbouring families are set apart sideways."""


class Family(NamedTuple):
    """The names of a study that share an algorithm, by the value of the setting that they differ in."""

    look: Look
    values: Mapping[str, float]


def families(
    names: Sequence[str], values: Mapping[str, float], methods: Mapping[str, Mapping[str, str]]
) -> list[Family]:
    """Group the names of a study by their algorithm, VACO last, so that nothing covers it.

    Args:
        names: the study's names.
        values: by name, the value of the setting.
        methods: what the names stand for.
    """
    algorithms = sorted({methods[name]["algorithm"] for name in names}, key=lambda one: (one == "vaco", one))
    return [
        Family(LOOKS[algorithm], {name: values[name] for name in names if methods[name]["algorithm"] == algorithm})
        for algorithm in algorithms
    ]


def estimates(axes: Axes, table: pd.DataFrame, family: Family, rank: int) -> pd.DataFrame:
    """Draw point and interval of a family's names; returns the rows that were drawn.

    Args:
        axes: where; its x-axis becomes logarithmic.
        table: rows with `name`, `point`, `low`, `high`.
        family: what to draw.
        rank: which of the families it is, to set it apart sideways.
    """
    rows = table[table["name"].isin(list(family.values))].copy()
    rows["x"] = rows["name"].map(family.values) * SHIFT ** (2 * rank - 1)
    rows = rows.sort_values("x")
    axes.vlines(rows["x"], rows["low"], rows["high"], color=family.look.colour, linewidth=1.1, zorder=family.look.order)
    axes.plot(rows["x"], rows["point"], **family.look.line, **family.look.point, label=family.look.label)
    return rows


def runs(axes: Axes, table: pd.DataFrame, column: str, family: Family, rank: int, **changes: object) -> pd.DataFrame:
    """Draw the mean over runs of a diagnostic, with a hair line from the least to the greatest run.

    Args:
        axes: where.
        table: `runs`, the rows of one task and K.
        column: the diagnostic.
        family: what to draw.
        rank: which of the families it is.
        **changes: keyword arguments of the line, in place of the family's.

    Returns:
        A row a name, with `runs`, the number of runs behind it.
    """
    table = table[table["name"].isin(list(family.values)) & np.isfinite(table[column])]
    rows = table.groupby("name")[column].agg(["mean", "min", "max", "size"]).reset_index()
    rows = rows.rename(columns={"size": "runs"})
    rows["x"] = rows["name"].map(family.values) * SHIFT ** (2 * rank - 1)
    rows = rows.sort_values("x")
    looks = {**family.look.line, **family.look.point, "label": family.look.label, **changes}
    axes.vlines(rows["x"], rows["min"], rows["max"], color=looks["color"], linewidth=0.7, zorder=looks["zorder"])
    axes.plot(rows["x"], rows["mean"], **looks)
    return rows


def logarithmic(axes: Axes, ticks: Sequence[float]) -> None:
    """Make the x-axis logarithmic with ticks at the values of the setting."""
    axes.set_xscale("log")
    axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(min(ticks) / 1.25, max(ticks) * 1.25)


def from_zero(axes: Axes) -> None:
    """Start the y-axis at 0, with room for a whole marker above the highest value."""
    axes.set_ylim(0.0, 1.06 * axes.get_ylim()[1])
