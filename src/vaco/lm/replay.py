"""A finished run of language models once more, in one process; one with generators by the schedule that it recorded."""

from __future__ import annotations

from pathlib import Path

from vaco.lm.asynchronous import from_columns
from vaco.lm.config import rebuild_lm
from vaco.lm.train import train
from vaco.runs import tables
from vaco.runs.differences import recorded_run
from vaco.runs.folder import POLICY, SCHEDULE


def train_again(folder: Path, out: Path, *, warm: Path | None = None, quiet: bool = False) -> None:
    """Train the run of a folder into another one.

    Args:
        folder: of a finished run; one with generators has its ``schedule.parquet``.
        out: where; continued if it holds an unfinished replay.
        warm: the warm start that the run was given; None makes it anew.
        quiet: show no progress.

    Raises:
        UserError: the folder holds no finished run, one of another training version, or training failed.
    """
    manifest, config = recorded_run(folder, rebuild_lm)
    recorded = from_columns(tables.read_parquet(folder / SCHEDULE), config) if config.generators else None
    train(config, out, warm=warm, keep_policy=POLICY in manifest["checksums"], quiet=quiet, recorded=recorded)
