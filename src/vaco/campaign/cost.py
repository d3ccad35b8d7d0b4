"""What it costs to check the results here: core-hours and energy, claim by claim, from what archived runs took.

A claim rests on a grid of runs: the main comparison of a tier, or one of its studies. Its cost is the time that its
runs took, by their manifests; runs that several claims share count in each. Energy is power times time. The power of a
core is measured where the processor tells it (`measure`), and elsewhere taken to be `ESTIMATE`, and said to be.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from vaco.archive import RUNS
from vaco.campaign import archives, pace
from vaco.campaign.kinds import AnyTier

ESTIMATE = 10.0
"""Watts a busy core, with its share of memory, power supply and cooling.

A server processor of 64 cores at 280 W takes 4.4 W a core; memory and board take about half as much again, and supply
and cooling a third to a half of the sum. No measurement of ours: machines differ by a factor of two either way.
"""
POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Power:
    """Watts a core, and whether they were measured."""

    watts: float
    measured: bool


@dataclass(frozen=True)
class Claim:
    """What a grid of runs costs: its tier and name, its runs, how many of them are archived, and their hours.

    With `predicted`, the hours have those of runs that no archive holds.
    """

    tier: str
    grid: str
    runs: int
    archived: int
    hours: float
    predicted: bool = False


def measure(seconds: float = 1.0, place: Path = POWERCAP, sleep: Callable[[float], None] = time.sleep) -> Power:
    """The power of a busy core of this machine, by the energy counters of its processors (RAPL); else the estimate.

    All cores together draw what the counters say, so the number is fair where all are busy, and too large elsewhere.

    Args:
        seconds: how long to look.
        place: where the counters are.
        sleep: waits.
    """
    before = _counters(place)
    began = time.perf_counter()
    if not before:
        return Power(ESTIMATE, measured=False)
    sleep(seconds)
    took, after = time.perf_counter() - began, _counters(place)
    # A counter that began anew meanwhile says nothing.
    spent = [after[name] - joule for name, joule in before.items() if after.get(name, 0.0) >= joule]
    if len(spent) < len(before) or sum(spent) <= 0:
        return Power(ESTIMATE, measured=False)
    return Power(sum(spent) / took / (os.cpu_count() or 1), measured=True)


def _counters(place: Path) -> dict[str, float]:
    """Joules by package, of the counters that may be read; intel-rapl:0 is a package, intel-rapl:0:1 a part of it."""
    found = {}
    for counter in sorted(place.glob("*-rapl:*/energy_uj")):
        if counter.parent.name.count(":") == 1:
            with suppress(OSError, ValueError):
                found[counter.parent.name] = int(counter.read_text(encoding="utf-8")) / 1e6
    return found


def claims(tier: AnyTier, results: Path) -> list[Claim]:
    """What each grid of a tier took, by the archives that hold its runs.

    Args:
        tier: of either kind.
        results: where archives are.
    """
    wall = _wall_seconds(results, tier.name)
    grids: dict[str, list[Any]] = {}
    for planned in tier.planned():
        for grid in getattr(planned, "grids", ("main",)):
            grids.setdefault(grid, []).append(planned.config)
    return [_claim(tier.name, grid, configs, wall) for grid, configs in grids.items()]


def whole(tier: AnyTier, results: Path) -> Claim:
    """What all runs of a tier took, each counted once; of those that no archive holds, what they will take."""
    return _claim(
        tier.name, "all", [planned.config for planned in tier.planned()], _wall_seconds(results, tier.name), results
    )


def _claim(tier: str, grid: str, configs: Sequence[Any], wall: dict[str, float], results: Path | None = None) -> Claim:
    known = [wall[str(config.run_id)] for config in configs if str(config.run_id) in wall]
    left = [config for config in configs if str(config.run_id) not in wall]
    ahead = _ahead(tier, left, results) if results is not None else None
    return Claim(tier, grid, len(configs), len(known), (sum(known) + (ahead or 0.0)) / 3600, ahead is not None)


def _ahead(tier: str, left: Sequence[Any], results: Path) -> float | None:
    """Seconds that runs will take; None where nothing like them was measured."""
    if all(hasattr(config, "env") for config in left):
        usual = pace.measured(results)
        return sum(pace.seconds(config.env, config.steps, usual) for config in left)
    usual = pace.measured(results, tier)
    if not all(config.task in usual for config in left):
        return None
    return float(sum(config.updates * usual[config.task] for config in left))


def _wall_seconds(results: Path, tier: str) -> dict[str, float]:
    """Seconds that each archived run took, by its identity; where a run was trained twice, in the own archive."""
    found: dict[str, float] = {}
    for archive in archives.published(results, tier):
        table = pq.read_table(archive.folder / RUNS, columns=["run", "wall_seconds"]).to_pydict()
        found |= dict(zip(table["run"], table["wall_seconds"], strict=True))
    return found


def render(tiers: Iterable[AnyTier], results: Path, power: Power) -> str:
    """The costs as text, claim by claim, and of whole tiers.

    Args:
        tiers: whose claims.
        results: where archives are.
        power: of a core.
    """
    how = "measured here, all cores together" if power.measured else "an estimate, this machine does not tell"
    lines = [f"A busy core takes {power.watts:.1f} W ({how}).", ""]
    lines.append(f"{'claim':<28} {'runs':>6} {'core-hours':>11} {'kWh':>8}")
    for tier in tiers:
        found = claims(tier, results)
        for claim in [
            *found,
            *([whole(tier, results)] if len(found) != 1 or found[0].archived < found[0].runs else []),
        ]:
            note = "" if claim.archived == claim.runs else f"  {claim.runs - claim.archived:,} not archived"
            note += ", predicted" if note and claim.predicted else ", not counted" if note else ""
            energy = claim.hours * power.watts / 1000
            name = f"{claim.tier}/{claim.grid}"
            lines.append(f"{name:<28} {claim.runs:>6,} {claim.hours:>11,.1f} {energy:>8,.2f}{note}")
    return "\n".join(lines)
