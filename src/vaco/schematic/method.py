"""The data of Figure 2: `python -m vaco.schematic.method --out FILE.json` runs both studies with a fixed seed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vaco.schematic import aligning, filtering
from vaco.schematic.files import run, write

SEED = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m vaco.schematic.method", description="Filters and alignments.")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    given = parser.parse_args(arguments)
    made = {
        "seed": SEED,
        "filtering": filtering.study(np.random.default_rng(SEED)),
        "aligning": aligning.study(np.random.default_rng(SEED)),
    }
    write(given.out, made)
    return 0


if __name__ == "__main__":
    run(main)
