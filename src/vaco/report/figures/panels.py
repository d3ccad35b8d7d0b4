"""Panels that several figures share: a statistic against K, and a statistic over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vaco.report.figures.style import WIDTH, End, band, bounded_x_axis, steps_label
from vaco.report.tables.methods import Look, look

NOTHING = "no finished runs yet"
NO_SEED = "no seed finished\non all tasks yet"
DODGE = 0.055
"""Horizontal distance of neighbouring algorithms at one K, in units of the distance between two values of K."""


def label_room(names: Sequence[str], methods: Mapping[str, Any], width: float) -> float:
    """Share of a panel's width that its labels need.

    Args:
        names: what is labelled.
        methods: for the labels of variants.
        width: width of the panel, inches.
    """
    return min(0.5, _label_inches(names, methods) / width)


def wide_last_column(names: Sequence[str], methods: Mapping[str, Any], columns: int) -> tuple[list[float], float]:
    """Ratios of the widths of a grid's columns of which the last also holds the labels, and that one's room.

    Returns:
        The ratios, and the share of the last panel's width that is left free for the labels.
    """
    labels = _label_inches(names, methods)
    panel = (WIDTH - 0.8 - labels) / columns
    return [1.0] * (columns - 1) + [1.0 + labels / panel], labels / (panel + labels)


def _label_inches(names: Sequence[str], methods: Mapping[str, Any]) -> float:
    """Width of the longest label with the hair line before it."""
    return 0.28 + 0.06 * max(len(look(name, methods).label) for name in names)


def count(axes: Axes, table: pd.DataFrame, *, nothing: str = NOTHING) -> None:
    """Say in a panel's upper right corner on how many seeds its cells rest, or that nothing is finished.

    Args:
        axes: where.
        table: the rows drawn in it, with `runs`.
        nothing: what to write into an empty panel.
    """
    if table.empty:
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center", "bbox": box}
        axes.text(0.5, 0.5, nothing, color="0.45", fontsize=6.5, **place)
        if len(axes.get_shared_y_axes().get_siblings(axes)) == 1:
            axes.set_yticks([])
        return
    fewest, most = int(table["runs"].min()), int(table["runs"].max())
    text = f"n = {fewest}" if fewest == most else f"n = {fewest}–{most}"
    axes.set_title(text, loc="right", fontsize=6.0, color="0.35")


def against_capacity(
    axes: Axes,
    table: pd.DataFrame,
    names: Sequence[str],
    capacities: Sequence[int],
    methods: Mapping[str, Any],
    *,
    room: float,
) -> list[End]:
    """Draw point and interval of every name at every K, the values of K equally spaced.

    Args:
        axes: where.
        table: rows with `name`, `lag`, `point`, `low`, `high`.
        names: what to draw, in order.
        capacities: values of K, the positions on the x-axis.
        methods: for the looks of variants.
        room: share of the x-axis left free for labels.

    Returns:
        The ends of the lines, to be labelled.
    """
    position = {lag: i for i, lag in enumerate(capacities)}
    ends = []
    for rank, name in enumerate(names):
        rows = table[table["name"] == name].sort_values("lag")
        if rows.empty:
            continue
        style = look(name, methods)
        shift = (rank - (len(names) - 1) / 2) * DODGE
        x = np.array([position[lag] + shift for lag in rows["lag"]])
        y = rows["point"].to_numpy()
        axes.vlines(x, rows["low"], rows["high"], color=style.colour, linewidth=1.1, zorder=style.order - 0.5)
        axes.plot(x, y, **style.line, **style.point)
        ends.append(End(float(x[-1]), float(y[-1]), style))
    half = len(names) / 2 * DODGE + 0.08
    last = len(capacities) - 1
    span = last + 2 * half
    axes.set_xlim(-half, last + half + span * room / (1 - room))
    axes.set_xticks(range(len(capacities)), [str(lag) for lag in capacities])
    bounded_x_axis(axes, -half, last + half)
    return ends


def over_training(
    axes: Axes,
    table: pd.DataFrame,
    names: Sequence[str],
    steps: int,
    methods: Mapping[str, Any],
    *,
    room: float,
    x: str = "grid_steps",
    mark: float = 1.0,
) -> list[End]:
    """Draw a line with its band for every name.

    Args:
        axes: where.
        table: rows with `name`, the column `x`, `point`, `low`, `high`.
        names: what to draw, in order.
        steps: length of training.
        methods: for the looks of variants.
        room: share of the x-axis left free for labels; 0 for none.
        x: column of the environment steps.
        mark: factor of the size of the markers.

    Returns:
        The ends of the lines, to be labelled.
    """
    ends = []
    for rank, name in enumerate(names):
        rows = table[table["name"] == name].sort_values(x)
        rows = rows[np.isfinite(rows["point"])]
        if rows.empty:
            continue
        style = look(name, methods)
        at, y = rows[x].to_numpy(), rows["point"].to_numpy()
        band(axes, at, rows["low"], rows["high"], style)
        # Markers start at different points, so that they do not pile up on each other.
        every = max(1, len(rows) // 5)
        marks = (rank * every // max(1, len(names)), every)
        point = style.point | {"markersize": mark * style.point["markersize"]}
        axes.plot(at, y, **style.line, **point, markevery=marks)
        ends.append(End(float(at[-1]), float(y[-1]), style))
    axes.set_xlim(-0.02 * steps, steps * (1.02 + room / (1 - room)))
    axes.set_xticks([0, steps / 2, steps], [steps_label(at) for at in (0, steps / 2, steps)])
    bounded_x_axis(axes, 0, steps)
    return ends


def label_start(axes: Axes, ends: Sequence[End], gap: float = 0.035) -> float:
    """Where labels start: a little right of the last end, in data coordinates."""
    low, high = axes.get_xlim()
    return max((end.x for end in ends), default=low) + gap * (high - low)


def with_two_intervals(axes: Axes, rows: pd.DataFrame, y: Sequence[float], drawn: Look, label: str = "") -> None:
    """Differences as points, thick their intervals, thin those that are corrected for the number of comparisons.

    Args:
        axes: where.
        rows: `difference`, `low`, `high`, `wide_low`, `wide_high`.
        y: a place for each.
        drawn: colour and marker.
        label: for the legend; none without.
    """
    axes.hlines(y, rows["wide_low"], rows["wide_high"], color=drawn.colour, linewidth=0.6)
    axes.hlines(y, rows["low"], rows["high"], color=drawn.colour, linewidth=1.8)
    point: dict[str, Any] = drawn.point | {"markersize": 4.4}
    axes.plot(rows["difference"], y, linestyle="none", color=drawn.colour, label=label or None, **point)


def zero_line(axes: Axes) -> None:
    """A dashed line where there is no difference."""
    axes.axvline(0.0, color="0.25", linewidth=0.8, linestyle=(0, (2, 1)))
