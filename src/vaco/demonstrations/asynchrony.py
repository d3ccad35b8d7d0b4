"""Policy ages under simulated asynchrony, counted and in closed form, and the measured systems by discrete events.

`python -m vaco.demonstrations.asynchrony --measured FILE.json --out FILE.json`. The ages under simulated asynchrony
come from `vaco.lag.PolicyBuffer`, the class that training uses, driven as the training loop drives it. The
discrete-event model is first asked for the systems that were measured, then for more actors of the same kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vaco.command import Parser, run_command
from vaco.demonstrations import events
from vaco.demonstrations.files import read, write
from vaco.lag import PolicyBuffer, expected_ages
from vaco.paths import path_flag

SEED = 0
ACTORS, PHASES = 16, 2000
CAPACITIES = (1, 4, 16)
EXAMPLE = {"capacity": 4, "actors": 6, "first": 7, "phases": 3}
TWIN = {"updates": 20_000, "warm": 200}
SCALE = (1, 2, 3, 4, 6, 8, 16, 32, 100, 300, 1000, 3000, 10_000)
CYCLES = 6
"""How often every actor of a large system delivers: in the second half ages have settled."""


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


def scaled(measured: Mapping[str, Any], actors: int, generator: np.random.Generator) -> dict[str, float]:
    """What more actors of a measured kind would come to, each at the pace that those had, on cores of its own.

    Args:
        measured: a system whose actors are alike.
        actors: how many.
        generator: source of the durations.

    Returns:
        `mean_age` and `oldest` (95 % of segments are at most that old), in updates; `capacity`, the K of a uniform
        buffer with that mean age; `busy`, the share of time in which the learner learns; `updates` and `pulls` a
        second, and `weights`, bytes a second of policies that are pulled.
    """
    count = len(measured["seconds_per_segment"])
    mean, spread = sum(measured["seconds_per_segment"]) / count, sum(measured["spread_of_segment"]) / count
    alike = {**measured, "seconds_per_segment": [mean] * actors, "spread_of_segment": [spread] * actors}
    simulation, batch = events.twin(alike, generator), measured["system"]["batch"]
    half = max(TWIN["warm"], CYCLES * actors // batch // 2)
    simulation.run(half)
    before = (simulation.now, simulation.busy, simulation.version, simulation.pulls)
    ages = simulation.run(2 * half)[half * batch :]
    after = (simulation.now, simulation.busy, simulation.version, simulation.pulls)
    seconds, busy, updates, pulls = (end - start for start, end in zip(before, after, strict=True))
    return {
        "actors": actors,
        "mean_age": float(ages.mean()),
        "oldest": float(np.quantile(ages, 0.95)),
        "capacity": float(2.0 * ages.mean() + 1.0),
        "busy": min(1.0, busy / seconds),
        "updates": updates / seconds,
        "pulls": pulls / seconds,
        "weights": pulls / seconds * measured["policy_bytes"],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = Parser(prog="python -m vaco.demonstrations.asynchrony", description="Ages of policies.")
    parser.add_argument("--measured", type=path_flag, required=True, help="what vaco.demonstrations.measure wrote")
    parser.add_argument("--out", type=path_flag, required=True, help="the JSON file to write")
    given = parser.parse_args(arguments)
    measured = read(given.measured, "python -m vaco.demonstrations.measure")
    generator = np.random.default_rng(SEED)
    twins = []
    for system in measured["systems"]:
        simulation, batch = events.twin(system, generator), system["system"]["batch"]
        ages = simulation.run(TWIN["warm"] + TWIN["updates"])[TWIN["warm"] * batch :]
        twins.append({"name": system["system"]["name"], "counts": np.bincount(ages).tolist()})
    buffers = [counted(capacity, ACTORS, PHASES, generator) for capacity in CAPACITIES]
    few = min(
        (one for one in measured["systems"] if not one["system"]["slowness"]), key=lambda one: one["system"]["actors"]
    )
    scale = [scaled(few, actors, generator) for actors in SCALE]
    record = {"seed": SEED, "actors": ACTORS, "phases": PHASES, "buffers": buffers}
    record |= {"example": example(generator), "twin": TWIN, "twins": twins}
    write(given.out, record | {"scaled_from": few["system"]["name"], "scale": scale})
    return 0


if __name__ == "__main__":
    run_command(main)
