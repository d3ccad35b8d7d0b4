"""The data of Figure 2: `python -m vaco.demonstrations.method --out FILE.json` runs both studies with a fixed seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vaco.command import Parser, run_command
from vaco.demonstrations import aligning, filtering
from vaco.demonstrations.files import write
from vaco.paths import path_flag

SEED = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = Parser(prog="python -m vaco.demonstrations.method", description="Filters and alignments.")
    parser.add_argument("--out", type=path_flag, required=True, help="the JSON file to write")
    given = parser.parse_args(arguments)
    made = {
        "seed": SEED,
        "filtering": filtering.study(np.random.default_rng(SEED)),
        "aligning": aligning.study(np.random.default_rng(SEED)),
    }
    write(given.out, made)
    return 0


if __name__ == "__main__":
    run_command(main)
