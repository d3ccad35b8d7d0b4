"""One look for every figure: sizes, labels at line ends, deterministic files. Colours: `vaco.report.tables.methods`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from vaco.report.tables.methods import LOOKS, Look

WIDTH = 6.75
"""Width of every figure, inches: the text width of a two-column page."""

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.solid_capstyle": "round",
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}


def new_figure(height: float) -> Figure:
    """An empty figure of the common width and the given height, inches, laid out by Matplotlib's constraints."""
    matplotlib.rcdefaults()  # a user's matplotlibrc would change the bytes of every figure
    matplotlib.rcParams.update(RC)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04, wspace=0.02, hspace=0.04)  # type: ignore[union-attr,call-arg]
    return figure


def save(figure: Figure, stem: Path) -> None:
    """Write `stem`.pdf and `stem`.png, the same bytes whenever the figure is the same."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(stem.with_name(stem.name + ".pdf"), metadata={"CreationDate": None})
    figure.savefig(stem.with_name(stem.name + ".png"))


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least `gap` apart, in the order of `wanted` and as near to it as possible.

    Least squares: with q_i = p_i − i·gap the constraint is that q increases, which pooling adjacent violators solves
    exactly; the bounds then clip q.

    Args:
        wanted: wished positions, in any order.
        gap: least distance of neighbours; reduced if the positions would not fit between the bounds.
        low: lower bound.
        high: upper bound.

    Returns:
        One position for each wish.
    """
    count = len(wanted)
    if count == 0:
        return []
    gap = min(gap, (high - low) / max(1, count - 1))
    order = sorted(range(count), key=lambda i: wanted[i])
    pools: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        pools.append((wanted[index] - rank * gap, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [((a * m + b * n) / (m + n), m + n)]
    pooled = [value for value, size in pools for _ in range(size)]
    top = high - (count - 1) * gap
    placed = [0.0] * count
    for rank, index in enumerate(order):
        placed[index] = min(max(pooled[rank], low), top) + rank * gap
    return placed


@dataclass(frozen=True)
class End:
    """The end of a line, in data coordinates, and what it is labelled with."""

    x: float
    y: float
    look: Look


def label_ends(axes: Axes, ends: Sequence[End], x: float) -> None:
    """Write each line's name beside its end, moved apart where they would overlap, with a hair line to the end.

    Call it once the limits are final and after `figure.canvas.draw()`, which places the axes.

    Args:
        axes: axes whose x-range leaves room for the text right of `x`.
        ends: ends with finite y.
        x: where the text starts, data coordinates.
    """
    ends = [end for end in ends if math.isfinite(end.y)]
    figure = axes.figure
    size = 7.0
    height = size * 1.12 / 72 * figure.dpi
    box = axes.get_window_extent()
    wished = [axes.transData.transform((end.x, end.y))[1] for end in ends]
    placed = spread(wished, height, box.y0 + height / 2, box.y1 - height / 2)
    limits = axes.get_xlim(), axes.get_ylim()
    for end, pixel in zip(ends, placed, strict=True):
        y = float(axes.transData.inverted().transform((0.0, pixel))[1])
        text_at = x + 0.008 * (limits[0][1] - limits[0][0])
        axes.plot([end.x, x], [end.y, y], color=end.look.colour, linewidth=0.5, zorder=2, clip_on=False)
        weight = "bold" if end.look is LOOKS["vaco"] else "normal"
        axes.text(
            text_at,
            y,
            end.look.label,
            color=readable(end.look.colour),
            fontsize=size,
            fontweight=weight,
            va="center",
            ha="left",
            clip_on=False,
            in_layout=False,
        )
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def readable(colour: str) -> NDArray[np.float64]:
    """A colour darkened until text in it reads on white (WCAG contrast of at least 3.5)."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    while 1.05 / (_luminance(rgb) + 0.05) < 3.5:
        rgb = rgb * 0.95
    return rgb


def _luminance(rgb: NDArray[np.float64]) -> float:
    linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def band(axes: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, style: Look) -> None:
    """Shade an interval; where it is undefined (NaN) nothing is drawn."""
    if np.isfinite(np.asarray(low, dtype=float)).any():
        axes.fill_between(x, low, high, color=style.colour, alpha=0.13, linewidth=0, zorder=style.order - 2)


def bounded_x_axis(axes: Axes, low: float, high: float) -> None:
    """End the x-axis where the data end, so that the room for labels reads as margin."""
    axes.spines["bottom"].set_bounds(low, high)


def steps_label(steps: float) -> str:
    """Environment steps for a tick: 0, 20k, 1M, 100M."""
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if steps >= unit:
            return f"{steps / unit:.3g}{suffix}"
    return f"{steps:g}"
