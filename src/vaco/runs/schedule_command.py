"""`vaco schedule`: a schedule of the ages that some other system measured, to train under."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from vaco.errors import UserError
from vaco.paths import path_flag


def add(commands: Any) -> None:
    """Enter the command."""
    command = commands.add_parser("schedule", help="make a schedule for --lag file:PATH of a CSV file of ages")
    command.set_defaults(function=_convert)
    command.add_argument(
        "ages",
        type=path_flag,
        metavar="CSV",
        help="a row for every segment in the order of training: update, age (in updates) and, if known, actor",
    )
    command.add_argument("--out", type=path_flag, required=True, metavar="FILE", help="the parquet file to write")
    command.add_argument("--steps", type=int, default=128, help="steps of a segment (default 128, as phase_steps)")


def _convert(options: argparse.Namespace) -> None:
    from vaco.runs import schedule, tables

    if options.steps < 1:
        raise UserError(f"steps is {options.steps}, but a segment has at least 1")
    out: Path = options.out
    recording, cut = schedule.from_ages(options.ages, options.steps)
    tables.write_parquet(out, schedule.to_columns(recording.entries))
    print(f"{out}: {recording.updates} updates of {recording.segments} segments each, {recording.actors} actors")
    if cut:
        print(f"{cut} ages were cut: nothing is older than the first policy", file=sys.stderr)
