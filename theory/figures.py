"""The theory's figures, from results/theory/*.json alone; the lags met in training are an optional further input.

python -m theory.figures --results results/theory --out build/paper/figures/theory --training build/results/desk/tables
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from theory import figures_filter, style
from theory.training import Lags, read_lags
from vaco.command import Parser, run_command
from vaco.errors import UserError
from vaco.paths import path_flag

Json = dict[str, Any]
NICE = {
    "state_drift": "drift of state distributions",
    "state_drift_coupled": "drift, coupled",
    "cpo": "CPO",
    "off_policy": "off-policy (total lag)",
    "off_policy_split": "off-policy (split by lag)",
    "off_policy_mixture": "off-policy (policy buffer)",
    "off_policy_coupled": "off-policy, coupled",
    "trpo": "TRPO",
    "trpo_kl": "TRPO with KL",
    "truncation_bias": "bias of realignment",
    "truncation_bias_lag": "bias ≤ backward lag",
    "vtrace_contraction": "V-trace contraction",
    "pinsker": "Pinsker",
    "pinsker_backward": "Pinsker, other direction",
    "pinsker_mean": "Pinsker, mean",
    "reverse_pinsker": "reverse Pinsker",
    "lag_split": "lag split",
    "lag_split_reverse": "lag split, reverse",
    "lag_chain": "lag along the buffer",
    "ratio_range": "TV ≤ ½ max|ρ − 1|",
    "chi_squared": "χ²",
    "effective_sample_size": "effective sample size",
    "binary_variation": "binary TV",
    "product_upper": "product actions, upper",
    "product_lower": "product actions, lower",
    "subgradient": "subgradient of TV",
    "target_between": "V-trace's target",
}
GAMMAS = (0.9, 0.99, 0.999)


def _row(data: Json, name: str) -> Json:
    found: Json = next(r for r in data["checks"] if r["name"] == name)
    return found


def slack_histograms(data: dict[str, Json], lags: Lags, out: Path) -> None:
    """How much of each bound random instances use, by family."""
    names = ("state_drift", "cpo", "off_policy", "off_policy_split", "off_policy_coupled", "trpo")
    figure, axes = style.new_figure(3.9, 2, 3, sharex=True, sharey=True)
    families = ["dense", "Garnet", "chain", "gridworld", "ring", "adversarial"]
    centres = 0.5 * (np.array(data["checks"]["bins"][:-1]) + np.array(data["checks"]["bins"][1:]))
    for axis, name in zip(axes, names, strict=True):
        histograms = _row(data["checks"], name)["histograms"]
        for index, family in enumerate(families):
            counts = np.array(histograms.get(family, np.zeros(len(centres))), dtype=float)
            if counts.sum():
                share = np.cumsum(counts) / counts.sum()
                axis.plot(centres, share, label=family, **style.line(index, marker=False))
        axis.set_title(NICE[name])
        axis.set_xlim(-5.0, 0.0)
        axis.set_ylim(0.0, 1.02)
        axis.set_xticks([-4, -2, 0], ["0.01 %", "1 %", "100 %"])
    axes[4].set_xlabel("share of the bound that is used, left/right (everything below 0.001 % at the left edge)")
    for axis in (axes[0], axes[3]):
        axis.set_ylabel("share of instances below")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    style.save(figure, out, "slack")


def slack_against_distance(data: dict[str, Json], lags: Lags, out: Path) -> None:
    """The used share of the off-policy bounds against the total lag, by discount."""
    figure, axes = style.new_figure(2.7, 1, 3, sharey=True)
    bands = ((0.0, 0.6, "γ < 0.6"), (0.6, 0.95, "0.6 ≤ γ < 0.95"), (0.95, 1.0, "γ ≥ 0.95"))
    for axis, name in zip(axes, ("state_drift", "off_policy", "off_policy_coupled"), strict=True):
        columns = {k: np.array(v) for k, v in _row(data["checks"], name)["scatter"].items()}
        for index, (low, high, label) in enumerate(bands):
            inside = (columns["discount"] >= low) & (columns["discount"] < high)
            look: Json = {"s": 7, "alpha": 0.55, "linewidths": 0, "marker": ("o", "s", "^")[index]}
            colour = ("#56B4E9", "#D55E00", "#000000")[index]
            axis.scatter(columns["variation"][inside], columns["attained"][inside], color=colour, label=label, **look)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(1e-6, 1.5)
        axis.set_ylim(1e-6, 2.0)
        axis.axhline(1.0, color="0.3", linewidth=0.8)
        axis.set_xlabel("total lag, E TV(π, β)")
        axis.set_title(NICE[name])
    axes[0].set_ylabel("used share, left/right")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, markerscale=1.8, handletextpad=0.2)
    style.save(figure, out, "slack_distance")


def promises(data: dict[str, Json], lags: Lags, out: Path) -> None:
    """What the bounds promise at the lags of training: the penalty over the trivial bound 2C/(1 − γ)."""
    figure, axes = style.new_figure(2.9, 1, 2, width_ratios=(3, 2))
    variation = np.logspace(-4, 0, 400)
    axis = axes[0]
    for index, gamma in enumerate(GAMMAS):
        look = style.line(index, marker=False)
        axis.plot(variation, gamma * variation / (1 - gamma), label=f"γ = {gamma}", **look)
        coupled = gamma * variation / (1 - gamma + gamma * variation)
        axis.plot(variation, coupled, color=look["color"], linestyle=look["linestyle"], linewidth=0.8)
    axis.axhspan(1.0, 1e3, color="0.93", zorder=0)
    axis.text(1.3e-4, 250, "says less than the trivial bound", fontsize=7)
    axis.text(1.6e-3, 0.00015, "thick: bound (c), mean TV\nthin: coupled bound, largest TV", fontsize=6.5)
    axis.axvline(0.1, color="0.4", linewidth=0.8)
    axis.text(0.107, 450, "δ/2", ha="left", va="center", fontsize=7)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(1e-4, 1.0)
    axis.set_ylim(1e-4, 1e3)
    axis.set_xlabel("total lag, TV(π, β)")
    axis.set_ylabel("penalty / trivial bound 2C/(1 − γ)")
    axis.legend(loc="center right", bbox_to_anchor=(1.0, 0.27))
    axis.set_title("What the penalty promises")
    axis = axes[1]
    if lags.rows:
        capacities = sorted({r["capacity"] for r in lags.rows})
        values = [[r["tv_after"] for r in lags.rows if r["capacity"] == c] for c in capacities]
        axis.boxplot(
            values,
            tick_labels=[str(c) for c in capacities],
            whis=(5, 95),
            showfliers=False,
            medianprops={"color": "#D55E00", "linewidth": 1.6},
        )
        for index, gamma in enumerate(GAMMAS):
            limit = (1 - gamma) / gamma
            axis.axhline(limit, **style.line(index, marker=False))
            # At the right, where the boxes lie above all lines.
            right = len(capacities) + 0.45
            axis.text(right, 0.72 * limit, f"(c) is empty above, γ = {gamma}", fontsize=6.5, ha="right")
        axis.set_ylim(5e-4, 1.0)
        axis.set_yscale("log")
        axis.set_xlabel("degree of asynchrony, buffer capacity K")
        axis.set_ylabel("total lag after a phase")
        axis.set_title(f"Lags met in training\n({lags.label})")
    else:
        for index, gamma in enumerate(GAMMAS):
            axis.bar(index, (1 - gamma) / gamma, color=style.COLOURS[index], width=0.6)
            axis.text(index, (1 - gamma) / gamma * 1.15, f"{(1 - gamma) / gamma:.3g}", ha="center")
        axis.set_yscale("log")
        axis.set_ylim(5e-4, 0.5)
        axis.axhline(0.1, color="0.4", linewidth=0.8)
        axis.text(2.45, 0.108, "δ/2", fontsize=7, ha="right", va="bottom")
        axis.set_xticks(range(len(GAMMAS)), [f"γ = {g}" for g in GAMMAS])
        axis.set_ylabel("bound (c) is empty from TV = (1 − γ)/γ")
        axis.set_title("Where it stops\n(no training results yet)")
    style.save(figure, out, "promises")


def lag_shares(data: dict[str, Json], lags: Lags, out: Path) -> None:
    """How loose the split by lag is, against the share of the forward lag; and the shares met in training."""
    figure, axes = style.new_figure(2.6, 1, 2 if lags.rows else 1)
    columns = {k: np.array(v) for k, v in data["checks"]["lags"].items()}
    both = columns["forward"] + columns["backward"]
    forward = columns["forward"] / both
    axes[0].scatter(forward, columns["total"] / both, s=6, alpha=0.5, linewidths=0, color="#0072B2", label="instances")
    grid = np.linspace(0.0, 1.0, 201)
    axes[0].plot(
        grid, np.abs(2 * grid - 1), color="#D55E00", linewidth=1.4, label="least possible: |forward − backward|"
    )
    axes[0].axhline(1.0, color="0.2", linewidth=1.0, linestyle=(0, (5, 1.5)), label="split attained")
    axes[0].set_ylim(0.0, 1.28 if not lags.rows else 1.48)
    axes[0].set_xlabel("share of the forward lag, forward / (forward + backward)")
    axes[0].set_ylabel("total / (forward + backward)")
    axes[0].set_title("Splitting the lag: random instances")
    axes[0].legend(loc="upper center", ncols=3 if not lags.rows else 1, fontsize=6.5)
    if lags.rows:
        capacities = sorted({r["capacity"] for r in lags.rows})
        for offset, name, colour, hatch in (
            (-0.2, "backward_lag", "#0072B2", ""),
            (0.2, "forward_lag", "#E69F00", "///"),
        ):
            means = [float(np.mean([r[name] for r in lags.rows if r["capacity"] == c])) for c in capacities]
            axes[1].bar(
                np.arange(len(capacities)) + offset,
                means,
                0.36,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                label=name.replace("_", " "),
            )
        axes[1].set_xticks(range(len(capacities)), [str(c) for c in capacities])
        axes[1].set_xlabel("degree of asynchrony, buffer capacity K")
        axes[1].set_ylabel("mean lag, TV")
        axes[1].set_title(f"Lags met in training ({lags.label})")
        axes[1].legend()
    style.save(figure, out, "lag_shares")


def tightness(data: dict[str, Json], lags: Lags, out: Path) -> None:
    """The largest used share of every bound: by chance, by search, by hand."""
    rows = data["tightness"]["checks"]
    figure, axes = style.new_figure(5.2)
    axis, places = axes[0], np.arange(len(rows))[::-1]
    kinds = (
        ("random", [r["random"] for r in rows], "#56B4E9", "o"),
        ("gradient ascent, γ = 0.5 / 0.9 / 0.99", None, "#0072B2", "s"),
        ("hand-made", [r["hand_made"] for r in rows], "#D55E00", "^"),
    )
    for place, row in zip(places, rows, strict=True):
        top = max(row["random"], row["hand_made"], *row["ascent"].values())
        axis.plot([0.0, top], [place, place], color="0.75", linewidth=3.0, zorder=1, solid_capstyle="butt")
    for label, values, colour, marker in kinds:
        look = {"color": colour, "linestyle": "none", "zorder": 3, **style.marker_style(marker)}
        if values is None:
            shown = [(v, p) for r, p in zip(rows, places, strict=True) for v in r["ascent"].values()]
            axis.plot([v for v, _ in shown], [p for _, p in shown], label=label, **look)
        else:
            axis.plot(values, places, label=label, **look)
    marks = {"attained": "attained", "approached": "approached"}
    for place, row in zip(places, rows, strict=True):
        axis.text(1.025, place, marks.get(row["verdict"], "open"), va="center", fontsize=6.5)
    axis.axvline(1.0, color="0.2", linewidth=0.8)
    axis.set_xlim(0.0, 1.16)
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.set_xticks(np.arange(0.0, 1.01, 0.2))
    axis.set_yticks(places, [NICE.get(r["name"], r["name"]) for r in rows])
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("largest share of the bound that is used, left/right")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    style.save(figure, out, "tightness")


def realignment(data: dict[str, Json], lags: Lags, out: Path) -> None:
    """Bias of V-trace's target and wrong signs of the advantage, against the backward lag."""
    edges = np.array(data["bias"]["edges"])
    centres = 0.5 * (edges[:-1] + edges[1:])
    study = data["bias"]["studies"][-1]
    figure, axes = style.new_figure(2.5, 1, 3)
    for index, curve in enumerate(study["curves"]):
        label = "no alignment" if curve["rho_bar"] is None else f"ρ̄ = {curve['rho_bar']:g}"
        for axis, key, scale in (
            (axes[0], "relative_bias", 100),
            (axes[1], "attained", 100),
            (axes[2], "wrong_signs", 100),
        ):
            if key in curve:
                values = np.array([np.nan if v is None else scale * v for v in curve[key]])
                axis.plot(centres, values, label=label, **style.line(index))
    axes[0].set_title("Bias that realignment leaves")
    axes[0].set_ylabel("% of the bias without alignment")
    axes[0].set_ylim(-3, 105)
    axes[1].set_title("Used share of its bound")
    axes[1].set_ylabel("largest left/right, %")
    axes[2].set_title("Wrong signs of A")
    axes[2].set_ylabel("% of the samples")
    for axis in axes:
        axis.set_xlabel("backward lag, E TV(π_T, β)")
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    style.save(figure, out, "realignment")


def estimators(data: dict[str, Json], lags: Lags, out: Path) -> None:
    """Noise and bias of the two TV estimators for Gaussian policies; saturation with dimension."""
    figure, axes = style.new_figure(2.6, 1, 3)
    rows = [r for r in data["gaussian"]["equal"] if r["batch"] == 512]
    exact = np.array([r["exact"] for r in rows])
    names = (("plain", "½ mean|ρ − 1|"), ("bounded", "mean (1 − ρ)⁺"))
    for index, (name, label) in enumerate(names):
        look = style.line(2 - index)
        deviation = np.array([r[name]["deviation"] for r in rows]) / exact
        axes[0].plot(exact, 100 * deviation, label=label, **look)
        theory = np.array([r["theory"][name] for r in rows]) / exact
        axes[0].plot(exact, 100 * theory, color=look["color"], linewidth=0.7)
        axes[1].plot(exact, 100 * (np.array([r[name]["median"] for r in rows]) / exact - 1), label=label, **look)
        high = np.array([r[name]["high"] for r in rows])
        axes[1].plot(exact, 100 * (high / exact - 1), color=look["color"], linestyle=look["linestyle"], linewidth=0.8)
    axes[0].set_yscale("log")
    axes[0].set_ylim(1.0, 100.0)
    axes[0].set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes[0].minorticks_off()
    axes[0].set_title("Noise of 512 samples")
    axes[0].set_ylabel("standard deviation, % of TV")
    axes[0].legend()
    axes[1].set_title("Median and 99.9 % quantile")
    axes[1].set_ylabel("error, % of TV")
    axes[1].set_ylim(-20, 100)
    for axis in axes[:2]:
        axis.axvline(0.1, color="0.5", linewidth=0.8)
        axis.set_xlabel("total variation")
    saturation = data["gaussian"]["saturation"]
    for index, shift in enumerate(sorted({r["per_dimension"] for r in saturation})):
        chosen = [r for r in saturation if r["per_dimension"] == shift]
        axes[2].plot(
            [r["dimension"] for r in chosen],
            [r["variation"] for r in chosen],
            label=f"{shift:g} σ",
            **style.line(index, marker=False),
        )
    axes[2].axhline(0.1, color="0.5", linewidth=0.8)
    axes[2].set_ylim(0.0, 1.0)
    axes[2].set_xlabel("action dimension")
    axes[2].set_title("TV by dimension")
    axes[2].set_ylabel("total variation")
    axes[2].legend(loc="upper left", ncols=2, title="shift of each dimension")
    style.save(figure, out, "estimators")


Draw = Callable[[dict[str, Json], Lags, Path], None]
FIGURES: dict[str, Draw] = {
    "slack": slack_histograms,
    "slack_distance": slack_against_distance,
    "promises": promises,
    "lag_shares": lag_shares,
    "tightness": tightness,
    "realignment": realignment,
    "estimators": estimators,
    "filter_step": figures_filter.one_step,
    "filter_phase": figures_filter.phases,
}


def read(folder: Path) -> dict[str, Json]:
    """The JSON files that the figures need.

    Raises:
        UserError: one is missing.
    """
    data = {}
    for name in ("checks", "tightness", "filter", "gaussian", "bias"):
        path = folder / f"{name}.json"
        if not path.is_file():
            raise UserError(
                f"{path} is missing, expected the theory's results: run 'vaco theory --parts all --out {folder}' first"
            )
        data[name] = json.loads(path.read_text(encoding="utf-8"))
    return data


def main(argv: list[str] | None = None) -> int:
    """Draw every figure; returns 0."""
    parser = Parser(prog="python -m theory.figures")
    parser.add_argument("--results", type=path_flag, default=Path("results/theory"))
    parser.add_argument("--out", type=path_flag, required=True, help="folder of the figures")
    parser.add_argument("--training", type=path_flag, default=None, help="folder of diagnostics.parquet, optional")
    options = parser.parse_args(argv)
    data, lags = read(options.results), read_lags(options.training)
    for draw in FIGURES.values():
        draw(data, lags, options.out)
    print(f"{len(FIGURES)} figures in {options.out}; {lags.note}")
    return 0


if __name__ == "__main__":
    run_command(main)
