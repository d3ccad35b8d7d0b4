"""One look for the theory's figures, that of all figures: Okabe and Ito's colours, told apart also in grey."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 6.75  # inches, the text width of a two-column page
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}

# Ordered from dark to light, so that grey prints keep the order; each with its own dashes and marker.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = (
    "solid",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (3, 1.2)),
    (0, (8, 1.5, 1.2, 1.5, 1.2, 1.5)),
    (0, (4, 1, 1, 1)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

ARMS: dict[str, tuple[str, str, Any, str]] = {  # label, colour, dashes, marker
    "none": ("no filter", "#777777", (0, (1.2, 1.2)), "v"),
    "clip": ("PPO's clip", "#0072B2", (0, (5, 1.5)), "s"),
    "tv": ("TV filter", "#D55E00", "solid", "o"),
    "tv+projection": ("TV filter + projection", "#000000", (0, (6, 1.5, 1.2, 1.5)), "D"),
}


def line(index: int, marker: bool = True) -> dict[str, Any]:
    """Colour, dashes and marker number `index`, as keyword arguments of a plotted line."""
    index %= len(COLOURS)
    look: dict[str, Any] = {"color": COLOURS[index], "linestyle": DASHES[index], "linewidth": 1.3}
    return look | (marker_style(MARKERS[index]) if marker else {})


def marker_style(marker: str) -> dict[str, Any]:
    """A marker with a white edge, so that overlapping ones stay apart."""
    return {"marker": marker, "markersize": 4.4, "markeredgecolor": "white", "markeredgewidth": 0.5}


def arm(name: str, marker: bool = True) -> dict[str, Any]:
    """How a filter is drawn, the same in every figure, with its label."""
    label, colour, dashes, symbol = ARMS[name]
    look = {"label": label, "color": colour, "linestyle": dashes, "linewidth": 1.8 if name == "tv" else 1.3}
    return look | (marker_style(symbol) if marker else {})


def new_figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of the common width and its axes, row by row."""
    matplotlib.rcdefaults()  # a user's matplotlibrc would change the bytes of every figure
    matplotlib.rcParams.update(RC)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flatten())


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write name.pdf and name.png, the same bytes whenever the figure is the same."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    figure.savefig(folder / f"{name}.png")
