"""Figure 1: simulated asynchrony beside real asynchrony, as computed, and the policy ages of both, as counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle

from vaco.command import run_command
from vaco.report.figures import style
from vaco.report.figures.demonstration import INK, MUTED, RULE, Data, bare, command
from vaco.report.figures.product import Drawn

BAR = 0.62  # height of a bar; rows are one apart
_VERSIONS = matplotlib.colormaps["viridis"]


def colour_of(version: int, newest: int, span: int) -> Any:
    """Colour of a policy version: dark when old, bright when new."""
    return _VERSIONS(0.12 + 0.83 * min(1.0, max(0.0, 1.0 - (newest - version) / span)))


def _bar(axes: Axes, x: float, y: float, width: float, colour: Any, text: str = "", height: float = BAR) -> None:
    axes.add_patch(Rectangle((x, y - height / 2), width, height, facecolor=colour, edgecolor="white", linewidth=0.5))
    if text:
        dark = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] < 0.5
        axes.text(
            x + width / 2, y, text, ha="center", va="center", fontsize=5.5, color="white" if dark else "black", zorder=5
        )


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], **look: Any) -> None:
    settings: dict[str, Any] = {
        "color": MUTED,
        "linewidth": 0.5,
        "mutation_scale": 4,
        "shrinkA": 0,
        "shrinkB": 0,
    } | look
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", **settings))


def _rows(axes: Axes, actors: int, learner: float, left: float) -> None:
    for actor in range(actors):
        axes.text(left, -actor, f"actor {actor + 1}", ha="right", va="center", fontsize=6, color=INK)
    axes.text(left, learner, "learner", ha="right", va="center", fontsize=6, color=INK)


def simulated(axes: Axes, example: Mapping[str, Any]) -> None:
    """Phases side by side: the buffer, who was given what, collection in step, and the update that ends the phase."""
    bare(axes)
    actors, capacity = example["actors"], example["capacity"]
    newest, span = example["shown"][-1]["phase"] + 1, capacity + 2
    learner = -actors - 0.55
    draw_gap, collect, update = 0.95, 1.7, 0.8
    slot, pitch = 0.6, 0.6 + 0.95 + 1.7 + 0.8 + 0.5
    height = (actors - 1) / capacity
    _rows(axes, actors, learner, -0.3)
    for i, shown in enumerate(example["shown"]):
        x = i * pitch
        # Newest on top; the stack stands beside the actors, so that lines show who draws which policy.
        y_of = {version: -height * (rank + 0.5) for rank, version in enumerate(reversed(shown["buffer"]))}
        for version, y in y_of.items():
            _bar(axes, x, y, slot, colour_of(version, newest, span), str(version), height=0.9 * height)
        begin = x + slot + draw_gap
        for actor, version in enumerate(shown["assigned"]):
            colour = colour_of(version, newest, span)
            axes.plot([x + slot + 0.05, begin - 0.05], [y_of[version], -actor], color=colour, linewidth=0.8)
            _bar(axes, begin, -actor, collect, colour, str(version))
        end = begin + collect
        axes.plot([end + 0.08] * 2, [-actors + 0.6, 0.4], color=INK, linewidth=0.9)
        _arrow(axes, (end + 0.08, -actors + 0.6), (end + 0.08, learner + 0.45), color=INK)
        made = shown["phase"] + 1
        _bar(axes, end - 0.2, learner, update, colour_of(made, newest, span), str(made))
        corner, top = end + update + 0.1, 0.75
        axes.plot([end - 0.15 + update, corner, corner], [learner, learner, top], color=MUTED, linewidth=0.6)
        if i + 1 < len(example["shown"]):
            onward = x + pitch + slot / 2
            axes.plot([corner, onward], [top, top], color=MUTED, linewidth=0.6)
            _arrow(axes, (onward, top), (onward, 0.05))
        else:
            _arrow(axes, (corner, learner), (corner, top + 0.1))
        if i == 0:
            axes.text(x + slot / 2, -actors + 0.85, f"buffer\nK = {capacity}", ha="center", va="top", fontsize=6)
            axes.text(begin - 0.35, 0.4, "draw", ha="right", va="bottom", fontsize=6)
            axes.text(begin + collect / 2, 0.4, "collect", ha="center", va="bottom", fontsize=6)
            axes.text(corner + 0.1, top + 0.1, "push", ha="left", va="bottom", fontsize=6)
    right = len(example["shown"]) * pitch
    _time(axes, 0.0, right, learner, "time, in phases")
    axes.set_xlim(-2.0, right)
    axes.set_ylim(learner - 1.7, 1.6)


def _time(axes: Axes, left: float, right: float, learner: float, label: str) -> None:
    _arrow(axes, (left, learner - 0.8), (right, learner - 0.8), color=INK)
    axes.text((left + right) / 2, learner - 0.95, label, ha="center", va="top", fontsize=6.5, color=INK)


def real(axes: Axes, system: Mapping[str, Any]) -> None:
    """The recorded events of a window: segments with the version that was pulled, the queue, and the updates."""
    bare(axes)
    actors = system["system"]["actors"]
    queue, learner = -actors - 0.05, -actors - 1.25
    updates = {int(index): (start, end) for index, start, end in system["window"]["updates"]}
    first = min(updates)
    shown = [index for index in updates if index < first + 10]
    left, right = updates[first][0], updates[shown[-1]][1]
    left, right = left - 0.02 * (right - left), right + 0.01 * (right - left)
    newest, span, unit = shown[-1] + 1, 12, right - left
    _rows(axes, actors, learner, left - 0.02 * unit)
    axes.text(left - 0.02 * unit, queue, "queue", ha="right", va="center", fontsize=6, color=INK)
    axes.plot([left, right], [queue, queue], color=RULE, linewidth=3, solid_capstyle="butt", zorder=0.5)
    for actor, version, pulled, done, _, update in system["window"]["segments"]:
        if done < left or pulled > right:
            continue
        colour = colour_of(version, newest, span)
        start, stop = max(pulled, left), min(done, right)
        text = str(int(version) - first) if stop - start > 0.045 * unit else ""
        _bar(axes, start, -actor, stop - start, colour, text)
        if left <= done <= right:
            axes.plot([done, done], [-actor - BAR / 2, queue], color=colour, linewidth=0.9, zorder=0.7)
            axes.plot([done], [-actor - BAR / 2], marker="v", markersize=2.2, color=colour, zorder=4)
        if update in shown and done >= left:
            begun = updates[int(update)][0]
            axes.plot([done, begun], [queue, queue], color=colour, linewidth=3, solid_capstyle="butt", zorder=0.9)
            axes.plot([begun, begun], [queue, learner + BAR / 2], color=colour, linewidth=0.9, zorder=0.8)
    for index in shown:
        start, end = updates[index]
        colour = colour_of(index + 1, newest, span)
        _bar(axes, start, learner, end - start, colour)
        axes.text((start + end) / 2, learner - 0.36, str(index + 1 - first), ha="center", va="top", fontsize=5.5)
    _time(axes, left, right, learner - 0.45, f"time: {unit:.1f} s of the measured run")
    axes.set_xlim(left - 0.17 * unit, right)
    axes.set_ylim(learner - 2.1, 0.7)


def ages_simulated(axes: Axes, buffers: Sequence[Mapping[str, Any]]) -> None:
    """Counted ages as bars, the closed form as marks, for each capacity."""
    looks = {buffer["capacity"]: look for buffer, look in zip(buffers, ("#999999", "#0072B2", "#D55E00"), strict=True)}
    for buffer in buffers:
        capacity, counts = buffer["capacity"], np.array(buffer["counts"])
        share = counts / counts.sum()
        axes.bar(np.arange(capacity), share, width=0.86, color=looks[capacity], alpha=0.45, zorder=2)
        axes.plot(
            np.arange(capacity), buffer["expected"], "_", color=looks[capacity], markersize=6, markeredgewidth=1.4,
            zorder=4,
        )  # fmt: skip
        x, y = capacity - 0.45, share[-1]
        axes.annotate(
            f"K = {capacity}", (x, y), (3, 2), textcoords="offset points", color=looks[capacity], fontsize=7,
            fontweight="bold", va="bottom",
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(0.02, 1.6)
    axes.set_yticks([0.03, 0.1, 0.3, 1.0], ["3 %", "10 %", "30 %", "100 %"])
    axes.minorticks_off()
    axes.set_xlim(-0.8, 18.5)
    axes.set_xticks(range(0, 17, 4))
    axes.set_xlabel("age of the policy, phases")
    axes.set_ylabel("share of assignments")


def ages_real(axes: Axes, systems: Sequence[Mapping[str, Any]], twins: Sequence[Mapping[str, Any]]) -> None:
    """Measured ages as bars side by side, the discrete-event twins as marks."""
    chosen = [pair for pair in zip(systems, twins, strict=True) if pair[0]["system"]["actors"] > 2]
    width = 0.86 / len(chosen)
    longest = 1
    for rank, ((system, twin), colour) in enumerate(zip(chosen, ("#009E73", "#CC79A7", "#0072B2"), strict=True)):
        counts, model = (np.array(part["counts"]) / np.sum(part["counts"]) for part in (system, twin))
        shift = (rank - (len(chosen) - 1) / 2) * width
        bars = {"width": width, "color": colour, "alpha": 0.45, "zorder": 2, "label": system["system"]["name"]}
        axes.bar(np.arange(len(counts)) + shift, counts, **bars)
        there = np.flatnonzero(model > 0.004)
        axes.plot(there + shift, model[there], "_", color=colour, markersize=6, markeredgewidth=1.4, zorder=4)
        longest = max(longest, int(there.max()), len(counts) - 1)
    axes.set_xlim(-0.6, longest + 0.6)
    axes.set_ylim(0, 1.5)  # room for the legend above the bars
    axes.set_yticks([0, 0.5, 1.0], ["0 %", "50 %", "100 %"])
    axes.set_xticks(range(longest + 1))
    axes.legend(frameon=False, fontsize=6, loc="upper right")
    axes.set_xlabel("age of the policy, learner updates")
    axes.set_ylabel("share of segments")


def scaled(axes: Axes, data: Mapping[str, Any], systems: Sequence[Mapping[str, Any]]) -> None:
    """Mean age against the number of actors: simulated as a line, measured as points."""
    actors = [row["actors"] for row in data["scale"]]
    axes.plot(actors, [row["mean_age"] for row in data["scale"]], "-", color=INK, linewidth=1.1, label="simulated")
    axes.plot(*_alike(systems, "mean_age"), "o", color="#D55E00", markersize=4.5, label="measured")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("actors")
    axes.set_ylabel("mean age, learner updates")
    axes.legend(frameon=False, fontsize=6, loc="upper left")


def busy(axes: Axes, data: Mapping[str, Any], systems: Sequence[Mapping[str, Any]]) -> None:
    """Share of time in which the learner learns: where it is 1, further actors add age and no data."""
    rows = [row for row in data["scale"] if row["actors"] <= 16]
    axes.plot([row["actors"] for row in rows], [row["busy"] for row in rows], "-", color=INK, linewidth=1.1)
    axes.plot(*_alike(systems, "learner_busy"), "o", color="#D55E00", markersize=4.5)
    axes.set_ylim(0, 1.08)
    axes.set_yticks([0, 0.5, 1.0], ["0 %", "50 %", "100 %"])
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    axes.set_xlabel("actors")
    axes.set_ylabel("learner busy")


def _alike(systems: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Numbers of actors and a figure of the measured systems whose actors are alike."""
    found = sorted((one["system"]["actors"], one[name]) for one in systems if not one["system"]["slowness"])
    return [actors for actors, _ in found], [value for _, value in found]


def draw(data: Data) -> Drawn:
    """Draw the six panels from `asynchrony` and `measured`."""
    asynchrony, measured = data.read("asynchrony"), data.read("measured")
    figure = style.new_figure(6.1)
    (left, right), (ages_left, ages_right), (below_left, below_right) = figure.subplots(
        3, 2, height_ratios=[1.45, 1, 0.9]
    )
    simulated(left, asynchrony["example"])
    left.set_title("a  Simulated asynchrony", loc="left", fontweight="bold")
    real(right, _slowed(measured))
    right.set_title("b  Real asynchrony", loc="left", fontweight="bold")
    ages_simulated(ages_left, asynchrony["buffers"])
    ages_left.set_title("c  Ages, simulated asynchrony", loc="left", fontweight="bold")
    ages_real(ages_right, measured["systems"], asynchrony["twins"])
    ages_right.set_title("d  Ages, real asynchrony", loc="left", fontweight="bold")
    scaled(below_left, asynchrony, measured["systems"])
    below_left.set_title("e  More actors", loc="left", fontweight="bold")
    busy(below_right, asynchrony, measured["systems"])
    below_right.set_title("f  The learner", loc="left", fontweight="bold")
    for axes in (ages_left, ages_right, below_left, below_right):
        axes.grid(visible=True, color=RULE, linewidth=0.4)
        axes.grid(visible=False, axis="x")
    return Drawn(figure, text_of(asynchrony, measured))


def _slowed(measured: Mapping[str, Any]) -> Mapping[str, Any]:
    """The measured system with a slower actor."""
    found: Mapping[str, Any] = next(one for one in measured["systems"] if one["system"]["slowness"])
    return found


def text_of(asynchrony: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """The caption."""
    example, machine, slowed = asynchrony["example"], measured["machine"], _slowed(measured)
    farthest = max(
        float(np.abs(np.array(b["counts"]) / np.sum(b["counts"]) - b["expected"]).max()) for b in asynchrony["buffers"]
    )
    largest = asynchrony["scale"][-1]
    return (
        "Colours and numbers are policy versions. "
        f"a: after each phase the new policy enters a buffer of capacity K (here {example['capacity']}); before each "
        "collection every actor draws one of the buffered policies uniformly; all collect in step, and the learner "
        f"waits. Drawn: the draws of vaco.lag.PolicyBuffer in phases {example['shown'][0]['phase']} to "
        f"{example['shown'][-1]['phase']} of a seeded run. "
        f"b: VACO trains on {slowed['env']} with {slowed['system']['actors']} actors in processes of their own, the "
        f"first made {slowed['system']['slowness'][0]:g} times slower; each pulls the newest weights when it begins a "
        f"segment of {slowed['segment_steps']:,} steps, and waits with a finished one until the learner takes it, "
        f"{slowed['system']['batch']} an update. Drawn: recorded events, versions counted from the first update shown, "
        "each update with the version that it makes. "
        f"c: ages of {asynchrony['phases'] * asynchrony['actors']:,} assignments over {asynchrony['phases']:,} phases "
        f"(bars) and the closed form (marks); they differ by at most {100 * farthest:.1f} percentage points. "
        f"d: ages of {slowed['segments']:,} segments of each measured system (bars) and of its discrete-event twin "
        "(marks). Where the learner is busy all the time, actors that are alike deliver in turn, and all data have one "
        "age, the number of actors over the segments an update; a slower one makes a spread and a tail. Neither is "
        "uniform. "
        f"e, f: more actors alike, each at the pace of '{asynchrony['scaled_from']}': from where the learner is busy, "
        f"every further one adds age and no data; {largest['actors']:,} would have a mean age of "
        f"{largest['mean_age']:,.0f} updates, that of a uniform buffer of K = {largest['capacity']:,.0f}. "
        f"Measured on {machine['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, which actors and learner "
        f"share, Python {machine['python']}; a second measurement would differ in detail."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
