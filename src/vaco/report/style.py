"""One look for every figure: colours, line styles, sizes, labels at line ends, deterministic files.

Each algorithm has one colour, marker and line style everywhere. The colours are those of Okabe and Ito, which readers
with any colour vision can tell apart; the line styles and markers tell the lines apart without colour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

WIDTH = 6.75
"""Width of every figure, inches: the text width of a two-column page."""

DashStyle = str | tuple[float, tuple[float, ...]]
SOLID: DashStyle = "solid"

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


@dataclass(frozen=True)
class Look:
    """How one algorithm is drawn."""

    label: str
    colour: str
    marker: str
    dashes: DashStyle = SOLID
    width: float = 1.2
    order: float = 3.0

    @property
    def line(self) -> dict[str, Any]:
        """Keyword arguments of a line."""
        return {"color": self.colour, "linestyle": self.dashes, "linewidth": self.width, "zorder": self.order}

    @property
    def point(self) -> dict[str, Any]:
        """Keyword arguments of a marker on a line; white edges keep overlapping markers apart."""
        size = {"P": 5.6, "X": 5.4, "*": 6.5, "s": 4.4, "D": 4.2}.get(self.marker, 4.8)
        return {"marker": self.marker, "markersize": size, "markeredgecolor": "white", "markeredgewidth": 0.5}


LOOKS: Mapping[str, Look] = {
    "vaco": Look("VACO", "#D55E00", "o", SOLID, 2.2, 6.0),
    "ppo": Look("PPO", "#0072B2", "s", (0, (5, 1.5)), 1.5, 5.0),
    "geppo": Look("GePPO", "#000000", "D", (0, (1.2, 1.2)), 1.3, 4.0),
    "spo": Look("SPO", "#009E73", "^", (0, (6, 1.5, 1.2, 1.5)), 1.3, 4.0),
    "ppo_kl": Look("PPO-KL", "#56B4E9", "v", (0, (3, 1.2)), 1.3, 4.0),
    "impala": Look("IMPALA", "#CC79A7", "P", (0, (8, 1.5, 1.2, 1.5, 1.2, 1.5)), 1.3, 4.0),
    "decoupled": Look("Decoupled PPO", "#E69F00", "X", (0, (4, 1, 1, 1)), 1.3, 4.0),
}

# Pairs ALIGN+FILTER without an alias that stand in the comparison beside the aliases. What tells two forms of a method
# apart is the policy that its trust region is centred on, so their labels say it.
PAIRS: Mapping[str, Look] = {
    "once+tv_total": Look("VACO (β)", "#8C2D04", "h", (0, (9, 1.5)), 2.0, 5.5),
    "none+proximal_clip": Look("PPO (π_T)", "#08306B", "<", (0, (2, 1)), 1.4, 4.5),
    "none+spo_proximal": Look("SPO (π_T)", "#00441B", ">", (0, (5, 1, 1.2, 1)), 1.3, 4.0),
    "none+kl_total": Look("PPO-KL (β)", "#3F007D", "p", (0, (3, 2.4)), 1.3, 4.0),
    "once+centred_clip_fixed": Look("Centred clip (π_T)", "#525252", "d", (0, (1.2, 2.2)), 1.3, 4.0),
    "once+centred_clip_lag": Look("Centred clip by lag (π_T)", "#969696", "8", (0, (7, 1, 1, 1, 1, 1)), 1.3, 4.0),
}
# The same of the aliases, for legends in which both forms stand. GePPO's clip, without the reuse of data that its
# shrinking is for, is not GePPO.
_CENTRED = {
    "vaco": "VACO (π_T)",
    "ppo": "PPO (β)",
    "spo": "SPO (β)",
    "ppo_kl": "PPO-KL (π_T)",
    "decoupled": "Decoupled PPO (π_T)",
    "geppo": "Centred clip by age (π_T)",
}

# Other pairs: the filter gives colour and marker, the alignment the line style.
_FILTERS = {
    "clip": ("#0072B2", "s"),
    "tv": ("#D55E00", "o"),
    "tv_total": ("#E69F00", "h"),
    "tv_proximal": ("#F0E442", "p"),
    "kl": ("#56B4E9", "v"),
    "spo": ("#009E73", "^"),
    "truncated": ("#CC79A7", "P"),
    "centred_clip": ("#000000", "D"),
    "decoupled_clip": ("#999999", "X"),
    "proximal_clip": ("#08306B", "<"),
    "spo_proximal": ("#00441B", ">"),
    "kl_total": ("#3F007D", "p"),
    "centred_clip_fixed": ("#525252", "d"),
    "centred_clip_lag": ("#969696", "8"),
    "none": ("#666666", "*"),
}
_ALIGNMENTS: Mapping[str, DashStyle] = {"none": (0, (1.2, 1.2)), "once": SOLID, "continuous": (0, (5, 1.5))}
_SYMBOLS = {"delta": "δ", "clip": "ε", "epochs": "epochs"}
_VARIANT_MARKERS = "<>8*HpdX"


def filter_look(rule: str) -> tuple[str, str]:
    """Colour and marker of a filter, the same as in every pair that uses it."""
    return _FILTERS.get(rule, ("#666666", "*"))


def look(name: str, methods: Mapping[str, Any] | None = None) -> Look:
    """How a path name is drawn: an alias, a pair ALIGN+FILTER, or a named variant of either.

    Args:
        name: the name.
        methods: `methods` of `summary.json`, for the settings of variants.
    """
    if name in LOOKS or name in PAIRS:
        return LOOKS[name] if name in LOOKS else PAIRS[name]
    if "+" in name:
        align, rule = name.split("+")
        colour, marker = filter_look(rule)
        return Look(f"{align} + {rule}", colour, marker, _ALIGNMENTS.get(align, SOLID))
    method = (methods or {}).get(name)
    if method is None:
        return Look(name, "#666666", "*")
    base = look(method["algorithm"])
    settings = ", ".join(f"{_SYMBOLS.get(key, key)} = {value}" for key, value in method["settings"].items())
    siblings = sorted(key for key, value in (methods or {}).items() if value["algorithm"] == method["algorithm"])
    marker = _VARIANT_MARKERS[siblings.index(name) % len(_VARIANT_MARKERS)]
    return replace(base, label=f"{base.label} {settings}", marker=marker, width=1.2, order=3.5)


def centred_label(name: str, methods: Mapping[str, Any] | None = None) -> str:
    """The label of `look` with the policy in brackets that the trust region is centred on, where the method has one.

    Args:
        name: as for `look`.
        methods: as for `look`.
    """
    algorithm = (methods or {}).get(name, {"algorithm": name})["algorithm"]
    plain, own = look(algorithm).label, look(name, methods).label
    return _CENTRED.get(algorithm, plain) + own.removeprefix(plain)


def new_figure(height: float) -> Figure:
    """An empty figure of the common width and the given height, inches, laid out by Matplotlib's constraints."""
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
