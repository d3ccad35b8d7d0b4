"""How far a campaign is, by what its runs write: manifests, locks, checkpoints, journals. No scheduler is asked.

A run is *finished* or *published*; *running* while its lock is held by somebody alive; *failed* if its last attempt
ended with a mistake, or was killed and nothing followed; else *waiting*, begun or not. Of a run at work, the two newest
checkpoints say how fast it is.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from vaco.campaign import archives, pace
from vaco.campaign.kinds import AnyTier
from vaco.errors import UserError
from vaco.runs import attempts, lock
from vaco.runs.folder import LOCK, MANIFEST, MARKER

State = Literal["published", "finished", "running", "waiting", "failed"]
KILLED = "it was killed: out of memory, out of time, or its node died"
SHOWN = 12
"""Runs that are listed one by one, unless all are asked for."""


@dataclass(frozen=True)
class RunStatus:
    """One run.

    Attributes:
        place: its folder below `results/runs`.
        state: see the module.
        task: of the run.
        steps: environment steps in all (of language models: gradient steps).
        done: how many of them are saved, as a share.
        rate: steps a second lately; None where that is not known.
        seconds: time spent training, of a finished run.
        silent: seconds since it last gave a sign of life, while it runs.
        reason: why it failed.
        tries: attempts that were written down.
        size: bytes of its folder.
        language: whether it is of a language model.
    """

    place: str
    state: State
    task: str
    steps: int
    done: float = 0.0
    rate: float | None = None
    seconds: float | None = None
    silent: float | None = None
    reason: str = ""
    tries: int = 0
    size: int = 0
    language: bool = False

    @property
    def left(self) -> float | None:
        """Seconds to go at the present rate."""
        return self.steps * (1 - self.done) / self.rate if self.rate else None


@dataclass(frozen=True)
class Campaign:
    """All runs of a tier, or all that there are folders of; `known` is seconds a step by task, see `pace`."""

    name: str
    runs: tuple[RunStatus, ...]
    known: Mapping[str, float]

    def of(self, *states: State) -> list[RunStatus]:
        """The runs in a state."""
        return [run for run in self.runs if run.state in states]

    @property
    def used_hours(self) -> float:
        """Hours of a core that went into the runs here; of unfinished ones by the usual pace, where there is one."""
        spent = [run.seconds if run.seconds is not None else run.done * self._whole(run) for run in self.runs]
        return sum(seconds for seconds in spent if not math.isnan(seconds)) / 3600

    @property
    def hours_to_go(self) -> float:
        """Hours of a core until all are finished, at the present rate or the usual pace; NaN where neither is known."""
        unfinished = self.of("running", "waiting", "failed")
        return sum(run.left or (1 - run.done) * self._whole(run) for run in unfinished) / 3600

    def _whole(self, run: RunStatus) -> float:
        if run.state == "published":
            return 0.0
        if run.language:  # no other task says what a model of another size takes
            return run.steps * self.known.get(run.task, math.nan)
        return pace.seconds(run.task, run.steps, self.known)


def campaign(tier: AnyTier, results: Path) -> Campaign:
    """Look at all runs of a tier.

    Args:
        tier: of either kind.
        results: where archives and run folders are.

    Raises:
        UserError: an archive is damaged.
    """
    known = archives.published_runs(results)
    now = time.time()
    found = []
    for planned in tier.planned():
        config, place = planned.config.resolved(), planned.config.place
        if str(planned.config.run_id) in known:
            task, steps, _ = _extent(config)
            found.append(RunStatus(place, "published", task, steps, 1.0, language=_language(config)))
        else:
            found.append(look(results / archives.FOLDERS, place, config, now))
    return Campaign(f"tier {tier.name}", tuple(found), _pace(found, results, tier.name))


def folders(results: Path) -> Campaign:
    """Look at all runs that have folders, whatever asks for them.

    Raises:
        UserError: there are none.
    """
    base, now, found = results / archives.FOLDERS, time.time(), []
    if not base.is_dir():
        raise UserError(f"there is no folder {base}: give the one that holds runs as --results, or a tier as --tier")
    for place in sorted(_run_folders(base)):
        record = next(filter(None, (_json(base / place / name) for name in (MANIFEST, MARKER))), {})
        if isinstance(record.get("config"), dict):
            found.append(look(base, place, record["config"], now))
    return Campaign(str(base), tuple(found), _pace(found, results))


def look(base: Path, place: str, config: Mapping[str, Any], now: float) -> RunStatus:
    """What is to be seen of a run from outside.

    Args:
        base: `results/runs`.
        place: the run's folder below it.
        config: its settings.
        now: seconds since 1970.
    """
    folder = base / place
    task, steps, units = _extent(config)
    past = attempts.history(folder)
    here = RunStatus(place, "waiting", task, steps, size=_size(folder), tries=len(past), language=_language(config))
    if (folder / MANIFEST).is_file():
        seconds = _json(folder / MANIFEST).get("wall_seconds")
        return replace(here, state="finished", done=1.0, seconds=float(seconds or 0.0))
    saved = attempts.saved(folder)
    here = replace(here, done=min(1.0, next(iter(saved), 0) / units))
    silent = lock.silence(folder / LOCK, now)
    if silent is not None:
        return replace(here, state="running", rate=_rate(saved, steps / units), silent=silent)
    if past and past[-1].outcome in ("refused", "crashed", "vanished"):
        return replace(here, state="failed", reason=past[-1].reason or KILLED)
    return here


def _language(config: Mapping[str, Any]) -> bool:
    return "updates" in config


def _extent(config: Mapping[str, Any]) -> tuple[str, int, int]:
    """Task, steps in all, and the number of units in which checkpoints count them."""
    if _language(config):
        return str(config["task"]), int(config["updates"]), int(config["updates"])
    batch = int(config["num_envs"]) * int(config["phase_steps"])
    phases = int(config["steps"]) // batch
    return str(config["env"]), phases * batch, phases


def _rate(saved: Mapping[int, float], steps_a_unit: float) -> float | None:
    """Steps a second between the two newest checkpoints."""
    (newer, late), (older, early) = [*saved.items(), (0, 0.0), (0, 0.0)][:2]
    return (newer - older) * steps_a_unit / (late - early) if older and late > early else None


def _pace(runs: Iterable[RunStatus], results: Path, tier: str = "") -> dict[str, float]:
    """Seconds a step by task: of the runs that finished here, else of archived ones, of language models the tier's."""
    found: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        if run.seconds and run.state == "finished":
            found[run.task].append(run.seconds / run.steps)
    usual = {**pace.measured(results), **(pace.measured(results, tier) if tier else {})}
    return {**usual, **{task: median(each) for task, each in found.items()}}


def _size(folder: Path) -> int:
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                total += _size(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else entry.stat().st_size
    return total


def _run_folders(base: Path) -> Iterator[str]:
    for place, below, files in os.walk(base):
        if {MANIFEST, MARKER} & set(files):
            below[:] = []
            yield str(Path(place).relative_to(base))


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        record = json.loads(path.read_bytes())
        return record if isinstance(record, dict) else {}
    return {}


def as_json(found: Campaign) -> str:
    """Everything, for programs."""
    totals: dict[str, Any] = {"runs": len(found.runs)}
    totals |= Counter(str(run.state) for run in found.runs)
    to_go = found.hours_to_go
    spent = {"core_hours_used": found.used_hours, "core_hours_to_go": None if math.isnan(to_go) else to_go}
    content = {
        "campaign": found.name,
        "totals": totals | spent,
        "runs": [asdict(run) | {"left": run.left} for run in found.runs],
    }
    return json.dumps(content, indent=1)


def render(found: Campaign, base: Path, *, everything: bool = False) -> str:
    """The campaign on a screen.

    Args:
        found: from `campaign` or `folders`.
        base: `results/runs`, to name logs.
        everything: list all runs that are at work or failed, not only some.
    """
    running, failed, waiting = found.of("running"), found.of("failed"), found.of("waiting")
    rates = [run.rate for run in running if run.rate]
    begun = sum(run.done > 0 for run in waiting)
    used, to_go = found.used_hours, found.hours_to_go
    at_once = f", some {_span(3600 * to_go / len(running))} with the {len(running)} at work" if running else ""
    ahead = "how much to go is unknown yet" if math.isnan(to_go) else f"about {to_go:,.1f} to go{at_once}"
    lines = [
        f"{found.name}: {len(found.runs):,} runs",
        "",
        f"  finished    {len(found.of('finished')):>6,}   and {len(found.of('published')):,} published before",
        f"  running     {len(running):>6,}   {f'median {median(rates):,.0f} steps/s' if rates else ''}".rstrip(),
        f"  waiting     {len(waiting):>6,}   {begun:,} of them begun",
        f"  failed      {len(failed):>6,}",
        f"  core-hours  {used:>8,.1f} used, {ahead}",
        f"  disk        {sum(run.size for run in found.runs) / 1e6:>8,.1f} MB",
    ]
    if running:
        lines += ["", "  running"]
        slowest = sorted(running, key=lambda run: run.done)
        for run in slowest if everything else slowest[:SHOWN]:
            speed = f"{run.rate:,.0f} steps/s, {_span(run.left or 0)} left" if run.rate else "no speed yet"
            quiet = f", silent for {_span(run.silent)}" if run.silent and run.silent > lock.STALE_AFTER / 4 else ""
            lines.append(f"    {run.done:>4.0%}  {speed}{quiet}  {run.place}")
        lines += _more(slowest, everything)
    if failed:
        lines += ["", "  failed, by reason"]
        lines += _reasons(failed, base, everything)
    return "\n".join(lines)


def _reasons(failed: Sequence[RunStatus], base: Path, everything: bool) -> Iterator[str]:
    groups: dict[str, list[RunStatus]] = defaultdict(list)
    for run in failed:
        groups[run.reason.replace(run.place, "...")].append(run)
    for reason, runs in sorted(groups.items(), key=lambda group: -len(group[1])):
        yield f"    {len(runs):,} x {reason}"
        for run in runs if everything else runs[:1]:
            yield f"        {attempts.log(base / run.place)}"


def _more(runs: Sequence[RunStatus], everything: bool) -> list[str]:
    hidden = 0 if everything else len(runs) - SHOWN
    return [f"    and {hidden:,} more: --all"] if hidden > 0 else []


def _span(seconds: float | None) -> str:
    """A time in the unit that suits it."""
    value = float(seconds or 0.0)
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if value >= 2 * unit:
            return f"{value / unit:.1f} {name}"
    return f"{value:.0f} s"
