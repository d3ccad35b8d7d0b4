"""Training of the language model for each N: accuracy, entropy, total variation, sample size, dropped share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vaco.command import run_command
from vaco.report.figures import lm_style, style
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables import lm_caption
from vaco.report.tables.lm_stats import of_grid
from vaco.report.tables.read import MAIN, Tables, drawn_last

ROWS = {
    "sampled_accuracy": "accuracy of\nsampled answers",
    "entropy": "entropy,\nnats a token",
    "total_lag": "total variation\nto the data",
    "ess": "effective\nsample share",
    "filtered_fraction": "share of\ntokens dropped",
}


def draw(tables: Tables) -> Drawn:
    """One row a quantity, one column an N."""
    evals, updates = (of_grid(tables.read(name), MAIN) for name in ("evals", "updates"))
    grid = tables.grid()
    names, counts = drawn_last(grid["algorithms"]), sorted(grid["minibatches"])
    figure = style.new_figure(6.6)
    panels = np.atleast_2d(figure.subplots(len(ROWS), len(counts), sharex=True, sharey="row", squeeze=False))
    for row, (column, label) in enumerate(ROWS.items()):
        table = evals if column in evals else updates
        for axes, count in zip(panels[row], counts, strict=True):
            chosen = table[table["minibatches"] == count]
            for name in names:
                series = chosen[chosen["algorithm"] == name].groupby("update")[column].mean()
                if len(series):
                    axes.plot(
                        series.index, _smooth(series), label=lm_style.look(name).label, **lm_style.look(name).line
                    )
            if row == 0:
                axes.set_title(f"N = {count}", loc="left")
        panels[row][0].set_ylabel(label)
    for axes in panels[-1]:
        axes.set_xlabel("gradient step")
    # Of the panel with most methods: a tier under way may have none yet at some N.
    handles, labels = max((axes.get_legend_handles_labels() for axes in panels[0]), key=lambda found: len(found[1]))
    figure.legend(handles, labels, loc="outside upper center", ncols=len(names))
    text = lm_caption.joined(
        "Training of a language model at each forward lag, means over seeds.",
        lm_caption.scale(tables.summary),
        "All but accuracy is measured on the minibatch before its gradient step and smoothed over eight steps; "
        "the entropy is that of the current policy at the data's tokens, the total variation to the data "
        "½ mean|ρ − 1| over response tokens.",
        lm_caption.split(updates),
        lm_caption.caveats(tables.summary),
    )
    return Drawn(figure, text)


def _smooth(series: pd.Series) -> pd.Series:
    """The mean over eight neighbouring steps; evaluation points, which are few, stay as they are."""
    return series if len(series) < 24 else series.rolling(8, min_periods=1, center=True).mean()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
