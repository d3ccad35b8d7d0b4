"""Figures of what the filter does not guarantee."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from theory import style
from theory.training import Lags

Json = dict[str, Any]
MODELS = ("table", "12 features", "6 features", "3 features", "network")


def _steps(data: dict[str, Json], **wanted: Any) -> list[Json]:
    rows = data["filter"]["one_step"]
    return [r for r in rows if all(r[key] == value for key, value in wanted.items())]


def one_step(data: dict[str, Json], lags: Lags, out: Path) -> None:
    """How often the lag rises after one filtered step over the threshold: by model, by minibatch, by arm."""
    figure, axes = style.new_figure(2.7, 1, 3)
    for index, model in enumerate(MODELS):
        rows = _steps(data, model=model, arm="tv", batch=None)
        axes[0].plot([r["length"] for r in rows], [100 * r["rate"] for r in rows], label=model, **style.line(index))
    axes[0].set_title("Filtered step, exact expectations")
    axes[0].set_ylabel("steps after which the lag rose, %")
    axes[0].legend(loc="lower right")
    batches: list[int | None] = [32, 128, 512, 2048, None]
    for index, batch in enumerate(batches):
        rows = _steps(data, model="network", arm="tv", batch=batch)
        label = "exact" if batch is None else f"{batch} samples"
        axes[1].plot([r["length"] for r in rows], [100 * r["rate"] for r in rows], label=label, **style.line(index))
    axes[1].set_title("Network, by minibatch")
    axes[1].legend(loc="lower right")
    for name in style.ARMS:
        rows = _steps(data, model="network", arm=name, batch=None)
        axes[2].plot([r["length"] for r in rows], [100 * r["rate"] for r in rows], **style.arm(name))
    axes[2].set_title("Network, by rule")
    axes[2].legend(loc="lower right")
    for axis in axes:
        axis.set_xscale("log")
        axis.set_yscale("symlog", linthresh=0.1)
        axis.set_ylim(-0.02, 150)
        axis.set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
        axis.set_xlabel("length of the step in parameters")
    style.save(figure, out, "filter_step")


def phases(data: dict[str, Json], lags: Lags, out: Path) -> None:
    """Forward lag along a phase, in units of the threshold, for each rule, optimiser and model."""
    figure, axes = style.new_figure(4.3, 2, 3, sharex=True, sharey=True)
    rows = [r for r in data["filter"]["phases"] if r["batch"] == 64]
    steps = np.arange(1, data["filter"]["steps"] + 1)
    for row_index, optimiser in enumerate(("SGD", "Adam")):
        for column, model in enumerate(("table", "6 features", "network")):
            axis = axes[3 * row_index + column]
            for r in rows:
                if r["optimiser"] == optimiser and r["model"] == model:
                    look = style.arm(r["arm"], marker=False)
                    axis.plot(steps, r["median"], **look)
                    if r["arm"] == "tv":
                        axis.fill_between(
                            steps, r["median"], r["ninetieth"], color=look["color"], alpha=0.2, linewidth=0
                        )
            axis.axhline(1.0, color="0.2", linewidth=0.8)
            axis.set_title(f"{model}, {optimiser}")
            axis.set_ylim(0.0, 5.0)
            axis.set_xlim(0, len(steps))
    for axis in axes[3:]:
        axis.set_xlabel("gradient step of the phase")
    for axis in (axes[0], axes[3]):
        axis.set_ylabel("forward lag / (δ/2), median")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    style.save(figure, out, "filter_phase")
