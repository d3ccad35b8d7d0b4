"""Figure 2: what the filter keeps beside PPO's clip, and what aligning once does beside never and continuously."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from vaco.command import run_command
from vaco.report.figures import style
from vaco.report.figures.demonstration import INK, MUTED, RULE, Data, command
from vaco.report.figures.product import Drawn
from vaco.report.tables import methods

KEPT, DROPPED = "#0072B2", "#D55E00"
NAMES = {"clip": "PPO's clip", "tv": "VACO's filter"}
RULE_LOOKS = {"clip": methods.LOOKS["ppo"], "tv": methods.LOOKS["vaco"]}
ALIGN_LOOKS = {"none": methods.LOOKS["ppo"], "once": methods.LOOKS["vaco"], "continuous": methods.LOOKS["impala"]}
ALIGN_LABELS = {"none": "never", "once": "once", "continuous": "continuously"}


def plane(axes: Axes, study: Mapping[str, Any], side: str, rule: str) -> None:
    """The samples in the plane of ratio and advantage: kept or dropped, as the filter function said."""
    shown = study["sides"][side]
    verdict = shown["rules"][rule]
    ratio, advantage, kept = np.array(shown["ratio"]), np.array(shown["advantage"]), np.array(verdict["kept"], bool)
    axes.scatter(ratio[kept], advantage[kept], s=4, color=KEPT, linewidths=0, zorder=3)
    axes.scatter(ratio[~kept], advantage[~kept], s=5, marker="x", color=DROPPED, linewidths=0.7, zorder=4)
    edges = (1 - study["clip"], 1 + study["clip"]) if rule == "clip" else (1.0,)
    for edge in edges:
        axes.axvline(edge, color=INK, linewidth=0.6, linestyle=(0, (4, 2)), zorder=2)
    axes.axhline(0, color=INK, linewidth=0.4, zorder=2)
    axes.set_xlim(0.1, 2.3)
    axes.set_ylim(-3.2, 3.2)
    axes.set_xticks([0.5, 1, 1.5, 2])
    axes.set_yticks([-2, 0, 2])
    axes.text(
        0.97, 0.03, f"keeps {verdict['kept_share']:.0%}", transform=axes.transAxes, ha="right", va="bottom",
        fontsize=6.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}, zorder=6,
    )  # fmt: skip


def ratios(axes: Axes, study: Mapping[str, Any]) -> None:
    """Histograms above the threshold: all ratios, and those that each rule keeps."""
    shown, edges = study["sides"]["above"], np.array(study["bins"])
    scale = 100 / study["samples"]
    axes.stairs(np.array(shown["histogram"]) * scale, edges, fill=True, color="0.88", zorder=1)
    for rule, look in RULE_LOOKS.items():
        counts = np.array(shown["rules"][rule]["histogram"]) * scale
        axes.stairs(counts, edges, color=look.colour, linewidth=1.2, linestyle=look.dashes, zorder=5 - (rule == "tv"))
    axes.axvline(1, ymax=0.75, color=INK, linewidth=0.4, linestyle=(0, (4, 2)))
    axes.set_xlim(0, 2.6)
    axes.set_xlabel("ratio ρ")
    axes.set_ylabel("% of samples a bin")
    handles = [
        Line2D([], [], color="0.82", linewidth=5, label="sampled"),
        *(
            Line2D([], [], **(look.line | {"linewidth": 1.2}), label=f"kept by {NAMES[rule]}")
            for rule, look in RULE_LOOKS.items()
        ),
    ]
    axes.legend(handles=handles, frameon=False, loc="upper right", fontsize=5.8, borderpad=0, handlelength=1.6)


def advantages(axes: Axes, study: Mapping[str, Any], cell: int) -> None:
    """The advantage of one state and action through the phase, under each alignment."""
    example, steps = study["example"], study["steps"]
    axes.axhline(example["wanted"][cell], color=INK, linewidth=0.8, linestyle=(0, (1, 1)), zorder=2)
    axes.annotate(
        r"exact $A^{\pi_T}$", (steps[-1], example["wanted"][cell]), (0, 2), textcoords="offset points", ha="right",
        va="bottom", fontsize=6.5, color=INK,
    )  # fmt: skip
    for name, look in ALIGN_LOOKS.items():
        values = [step[cell] for step in example["advantages"][name]]
        point = look.point | {"markersize": 3.2}
        axes.plot(steps, values, **look.line, **point, markevery=(list(ALIGN_LOOKS).index(name), 4))
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.12 * (high - low), high + 0.12 * (high - low))
    state, action = example["cells"][cell]
    axes.set_ylabel(f"advantage of s{state}, a{action}")
    axes.set_xlabel("gradient step of the phase")


def errors(axes: Axes, study: Mapping[str, Any]) -> None:
    """Error over the phase, median and middle half of the processes."""
    steps = np.array(study["steps"])
    for name, look in ALIGN_LOOKS.items():
        low, middle, high = 100 * np.quantile(np.array(study["error"][name]), [0.25, 0.5, 0.75], axis=0)
        axes.fill_between(steps, low, high, color=look.colour, alpha=0.12, linewidth=0)
        point = look.point | {"markersize": 3.2}
        order = list(ALIGN_LOOKS).index(name)
        axes.plot(steps, middle, **look.line, **point, markevery=(order, 4), label=ALIGN_LABELS[name])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("gradient step of the phase")
    axes.set_ylabel("error, % of advantage")
    axes.legend(
        frameon=False, loc="lower right", fontsize=6, title="aligned", title_fontsize=6, borderpad=0, labelspacing=0.25
    )


def draw(data: Data) -> Drawn:
    """Draw both rows from `method`."""
    made = data.read("method")
    filtering, aligning = made["filtering"], made["aligning"]
    figure = style.new_figure(4.3)
    upper, lower = np.asarray(figure.subfigures(2, 1)).tolist()
    panels = upper.subplots(1, 4, sharey=True)
    places = [(rule, side) for rule in ("clip", "tv") for side in ("below", "above")]
    for letter, axes, (rule, side) in zip("abcd", panels, places, strict=True):
        plane(axes, filtering, side, rule)
        sign = "<" if side == "below" else ">"
        axes.set_title(f"{letter}  {NAMES[rule]}", loc="left", fontweight="bold", fontsize=7.5)
        axes.set_xlabel(f"ratio ρ;  2 TV = {filtering['sides'][side]['twice_tv']:.2f} {sign} δ", fontsize=6.5)
    panels[0].set_ylabel("advantage A")
    first, second, third = lower.subplots(1, 3)
    ratios(first, filtering)
    advantages(second, aligning, 0)
    errors(third, aligning)
    for letter, axes, title in (
        ("e", first, "Ratios kept, 2 TV > δ"),
        ("f", second, "One advantage"),
        ("g", third, "Error of alignment"),
    ):
        axes.set_title(f"{letter}  {title}", loc="left", fontweight="bold", fontsize=7.5)
    for axes in (*panels, first, second, third):
        axes.grid(visible=False)
        axes.spines[["left", "bottom"]].set_color(MUTED)
        axes.tick_params(color=RULE)
    return Drawn(figure, text_of(filtering, aligning))


def text_of(filtering: Mapping[str, Any], aligning: Mapping[str, Any]) -> str:
    """The caption."""
    none, once, follow = (np.array(aligning["error"][name]) for name in ALIGN_LOOKS)
    better = float((once[:, 0] < none[:, 0]).mean())
    shares = {
        side: {rule: filtering["sides"][side]["rules"][rule]["kept_share"] for rule in NAMES}
        for side in ("below", "above")
    }
    end = float((follow[:, -1] < once[:, -1]).mean())
    return (
        f"Upper row, a Gaussian bandit with {filtering['samples']:,} samples, of which the first are drawn; the data "
        "are synchronous, ρ_T = 1. Dots keep their gradient, crosses lose it, as the functions clip and tv of "
        f"vaco.objectives.filters say (ε = δ = {filtering['delta']:g}). The clip judges every sample by its own ratio, "
        f"whatever the divergence: it keeps {shares['below']['clip']:.0%} below the threshold and "
        f"{shares['above']['clip']:.0%} above. The filter keeps {shares['below']['tv']:.0%} below; above, it drops "
        f"exactly the samples whose own gradient would increase their own term of it, A·sign(ρ − ρ_T) > 0, and keeps "
        f"{shares['above']['tv']:.0%}, distant ratios among them if they pull back. e: the ratios kept above the "
        "threshold. Lower row, "
        f"right: {aligning['processes']} random decision processes with {aligning['states']} states and "
        f"{aligning['actions']} actions, γ = {aligning['discount']:g}, λ = {aligning['trace_decay']:g}; data from β, "
        f"exact critic of β, median backward lag {np.median(aligning['backward_lag']):.2f} and forward lag at the end "
        f"{np.median(aligning['forward_lag']):.2f} (total variation). Advantages come from vaco.objectives.align and "
        "are centred under π_T. f: the state and action of the first process that alignment changes most, visits by β "
        "counted in. g: root mean square error against the exact advantage of π_T, weighted by β's visits, as a share "
        "of its own size; continuous alignment aims at the current policy's advantage, not at this one. Line and band: "
        f"median and middle half of the processes. Aligning once has the smaller error than not aligning on "
        f"{better:.0%} of them; at the end of the phase, continuous alignment is nearer to π_T's advantage than "
        f"aligning once on {end:.0%}, at the cost of one alignment an update."
    )


def main(arguments: list[str] | None = None) -> int:
    """The command of this figure."""
    return command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
