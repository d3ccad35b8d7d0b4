"""Policy ages under simulated asynchrony, counted and in closed form, and the twin of the measured system.

`python -m vaco.schematic.asynchrony --measured FILE.json --out FILE.json`. The ages come from `vaco.lag.PolicyBuffer`,
the class that training uses, driven as the training loop drives it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaco.lag import PolicyBuffer, expected_ages
from vaco.schematic import events
from vaco.schematic.files import read, run, write

SEED = 0
ACTORS, PHASES = 16, 2000
CAPACITIES = (1, 4, 16)
EXAMPLE = {"capacity": 4, "actors": 6, "first": 7, "phases": 3}
TWIN = {"updates": 20_000, "warm": 200}


def counted(capacity: int, actors: int, phases: int, generator: np.random.Generator) -> dict[str, Any]:
    """Ages over the phases of a run, its first phases included, and what `expected_ages` says of them.

    Args:
        capacity: K.
        actors: draws a phase.
        phases: phases, each of which begins with one more policy pushed.
        generator: source of the draws.

    Returns:
        `counts` of the ages 0 … K − 1, `expected` probability of each, averaged over the same phases.
    """
    buffer: PolicyBuffer[int] = PolicyBuffer(capacity)
    counts, expected = np.zeros(capacity, dtype=np.int64), np.zeros(capacity)
    for phase in range(phases):
        buffer.push(phase)
        versions, ages = buffer.assign(actors, generator)
        if [phase - version for version in versions] != ages.tolist():
            raise AssertionError("the ages are not those of the policies handed out")
        counts += np.bincount(ages, minlength=capacity)
        expected += expected_ages(phase + 1, capacity) / phases
    return {"capacity": capacity, "counts": counts.tolist(), "expected": expected.tolist()}


def example(generator: np.random.Generator) -> dict[str, Any]:
    """A few phases of a small buffer, to be drawn: what it holds, and which version each actor is given."""
    buffer: PolicyBuffer[int] = PolicyBuffer(EXAMPLE["capacity"])
    shown = []
    for phase in range(EXAMPLE["first"] + EXAMPLE["phases"]):
        buffer.push(phase)
        versions, _ = buffer.assign(EXAMPLE["actors"], generator)
        if phase >= EXAMPLE["first"]:
            shown.append({"phase": phase, "buffer": list(buffer), "assigned": versions})
    return EXAMPLE | {"shown": shown}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m vaco.schematic.asynchrony", description="Ages of policies.")
    parser.add_argument("--measured", type=Path, required=True, help="what vaco.schematic.measure wrote")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    given = parser.parse_args(arguments)
    measured = read(given.measured, "python -m vaco.schematic.measure")
    generator = np.random.default_rng(SEED)
    twins = []
    for system in measured["systems"]:
        ages = events.ages(system, updates=TWIN["updates"], warm=TWIN["warm"], generator=generator)
        twins.append({"name": system["system"]["name"], "counts": np.bincount(ages).tolist()})
    buffers = [counted(capacity, ACTORS, PHASES, generator) for capacity in CAPACITIES]
    record = {"seed": SEED, "actors": ACTORS, "phases": PHASES, "buffers": buffers}
    write(given.out, record | {"example": example(generator), "twin": TWIN, "twins": twins})
    return 0


if __name__ == "__main__":
    run(main)
