"""`vaco replay`: train a finished run again, by its own record, and compare every bit."""

from __future__ import annotations

import argparse
from typing import Any

from vaco.paths import path_flag


def add(commands: Any) -> None:
    """Enter the command."""
    command = commands.add_parser("replay", help="train a finished run again, in one process, and compare every bit")
    command.set_defaults(function=_replay)
    command.add_argument("run", type=path_flag, metavar="DIR", help="the folder of the run, asynchronous or not")
    command.add_argument(
        "--out", type=path_flag, metavar="DIR", help="where to train it (default: a temporary folder); resumes there"
    )
    command.add_argument("--quiet", action="store_true", help="show no progress")


def _replay(options: argparse.Namespace) -> None:
    from vaco import stopwatch
    from vaco.control.asynchronous.replay import train_again
    from vaco.runs.differences import require_same

    stopwatch.stop()
    require_same(options.run, options.out, lambda out: train_again(options.run, out, quiet=options.quiet))
