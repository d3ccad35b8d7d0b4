"""How long the theory suite takes, against its targets: 10,000 float instances in 60 s, 1 GB, exact suite in 180 s.

OMP_NUM_THREADS=1 python benchmarks/theory.py
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from theory.run import main
from vaco.command import run_command

TARGETS = {"checks": 60.0, "exact": 180.0}  # seconds
MEMORY = 1.0  # GB


def timed(part: str) -> float:
    """Wall-clock seconds of one part at its default size, on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        code = main(["--parts", part, "--out", folder, "--quiet"])
        if code:
            raise SystemExit(f"the part {part} failed")
        return time.perf_counter() - started


def run() -> int:
    """Measure, print JSON, return 1 when a target is missed."""
    seconds = {part: timed(part) for part in TARGETS}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    missed = [part for part, value in seconds.items() if value > TARGETS[part]]
    print(json.dumps({"machine": platform.processor() or platform.machine(), "seconds": seconds, "peak_gb": peak}))
    return 1 if missed or peak > MEMORY else 0


if __name__ == "__main__":
    run_command(run)
