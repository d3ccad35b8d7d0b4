"""The settings of a run's asynchrony, its schedule and its actors: as users write them, and how they must fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vaco.errors import UserError
from vaco.lag import FILE, Uniform, parse_schedule
from vaco.runs import schedule as schedules

if TYPE_CHECKING:
    from vaco.runs.config import RunConfig

DEFAULT_SCHEDULE = "uniform"
OF_ACTORS = ("engine", "segments", "pull", "queue", "broadcast", "max_staleness", "slowness")
"""Settings that only a run with actors reads."""


def settle(config: RunConfig) -> None:
    """Check a configuration's schedule and actors, and spell the schedule in the one way.

    Raises:
        UserError: they do not fit together.
    """
    _settle_schedule(config)
    _check_actors(config)


def word(actors: int, schedule: str, lag: int) -> str:
    """What makes a run's data old, as part of a path: ``lag16``, ``fifo-8``, ``actors3``."""
    if actors:
        return f"actors{actors}"
    if schedule == DEFAULT_SCHEDULE:
        return f"lag{lag}"
    return schedule.split("#")[-1] if schedule.startswith(f"{FILE}:") else schedule.replace(":", "-")


def schedule_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings `schedule` and `lag` as `RunConfig` has them, where the lag is more than a number.

    Raises:
        UserError: the lag is neither a number nor a schedule, or it is given twice.
    """
    lag, schedule = settings.get("lag"), settings.get("schedule", DEFAULT_SCHEDULE)
    number = int(lag) if isinstance(lag, str) and lag.isascii() and lag.isdigit() else None
    if isinstance(lag, str) and number is None:
        if schedule != DEFAULT_SCHEDULE:
            raise UserError(
                f"the schedule is given twice, as lag '{lag}' and as schedule '{schedule}': keep one of them"
            )
        schedule, lag = lag, None
    lag = lag if number is None else number
    if schedule == DEFAULT_SCHEDULE or not isinstance(schedule, str):
        return {} if lag is None else {"lag": lag}
    if schedule.startswith(f"{FILE}:"):
        if "#" in schedule and lag is not None:
            return {}  # from a record, for which no file is needed
        named, capacity = schedules.pinned(schedule.removeprefix(f"{FILE}:"))
        if lag not in (None, capacity):
            raise UserError(f"lag is {lag}, but the schedule {schedule} needs {capacity} policies: leave lag out")
        return {"schedule": f"{FILE}:{named}", "lag": capacity}
    return {"schedule": schedule, "lag": parse_schedule(schedule).capacity if lag is None else lag}


def _settle_schedule(config: RunConfig) -> None:
    """Refuse a schedule that the lag contradicts, and spell it in one way."""
    if config.recorded or config.schedule == DEFAULT_SCHEDULE:
        return
    ages = parse_schedule(config.schedule)
    if config.lag != ages.capacity:
        raise UserError(
            f"lag is {config.lag}, but the schedule {config.schedule} holds {ages.capacity} policies: leave lag out, "
            "it follows"
        )
    # One spelling: equal schedules are one run.
    object.__setattr__(config, "schedule", DEFAULT_SCHEDULE if isinstance(ages, Uniform) else str(ages))


def _check_actors(config: RunConfig) -> None:
    """Refuse settings of actors that contradict others."""
    if not config.actors:
        return
    if config.lag != 1 or config.schedule != DEFAULT_SCHEDULE:
        raise UserError(
            f"actors is {config.actors}, whose data is as old as it is, but a schedule of lag {config.lag} is asked "
            "for: leave out one of the two"
        )
    if config.num_envs % config.batch_segments:
        raise UserError(
            f"num_envs is {config.num_envs}, which {config.batch_segments} segments cannot share: use a multiple of "
            f"{config.batch_segments}, or set segments"
        )
    if len(config.slowness) > config.actors or (config.slowness and min(config.slowness) < 1.0):
        raise UserError(
            f"slowness is {list(config.slowness)}, but it must list a number of at least 1 for each of the first of "
            f"{config.actors} actors, such as [4.0]"
        )
