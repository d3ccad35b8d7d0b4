"""A finished run once more: in one process, by the schedule that it recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vaco.control.asynchronous.run import RecordedRun
from vaco.control.train import Run, train
from vaco.runs import schedule
from vaco.runs.config import RunConfig, build
from vaco.runs.differences import recorded_run
from vaco.runs.folder import SCHEDULE


def train_again(folder: Path, out: Path, *, quiet: bool = False) -> None:
    """Train the run of a folder into another one.

    Args:
        folder: of a finished run; one with actors of its own, or a recorded schedule, has its ``schedule.parquet``.
        out: where; continued if it holds an unfinished replay.
        quiet: show no progress.

    Raises:
        UserError: the folder holds no finished run, one of another training version, or training failed.
    """
    _, config = recorded_run(folder, build)

    def begin(config: RunConfig, say: Callable[[str], None]) -> Run:
        if not (config.actors or config.recorded):
            return Run(config, say)
        return RecordedRun(config, say, schedule.read(folder / SCHEDULE))

    train(config, out, quiet=quiet, begin=begin)
