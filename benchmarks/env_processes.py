#!/usr/bin/env python
"""What `--env-processes` gains: the whole loop with environments in this process, and shared out over others.

    python benchmarks/env_processes.py --out benchmarks/results

Tasks that Gymnasium alone steps, a slow one (Humanoid through Gymnasium's backend, some 0.2 ms a step) and a quick one
(CartPole). 16 environments x 128 steps a phase, evaluation left out, turn by turn within each round; the ratio is the
median over rounds of ratios within a round, by the wall, since the work is spread over cores. The bits are the same
(`tests/control`). Writes env_processes.json; wants a quiet machine of two cores or more.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median

from vaco.demonstrations.measure import machine
from vaco.paths import path_flag

TASKS = ("Humanoid-v5", "CartPole-v1")
WARM_UP = 2


def speed(task: str, processes: int, phases: int) -> float:
    """Steps a second of the whole loop."""
    from vaco.control.train import Run
    from vaco.runs.config import build

    run = Run(
        build({"env": task, "algorithm": "ppo", "steps": 10_000_000, "backend": "gymnasium"}), env_processes=processes
    )
    try:
        for _ in range(WARM_UP):
            run.advance()
        started = time.perf_counter()
        for _ in range(phases):
            run.advance()
        return phases * run.config.batch / (time.perf_counter() - started)
    finally:
        run.stop()


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--phases", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", default=str(Path(__file__).parent / "out"))
    options = parser.parse_args()
    out, before = path_flag(options.out), machine()
    samples: dict[str, list[dict[str, float]]] = {task: [] for task in TASKS}
    for number in range(options.rounds):
        for task, found in samples.items():
            of = {str(count): speed(task, count, options.phases) for count in (1, options.processes)}
            found.append(of)
            print(f"round {number + 1}  {task:12} {of}", file=sys.stderr, flush=True)
    several = str(options.processes)
    summary = {
        "machine": before,
        "processes": options.processes,
        "ratio": {task: median(one[several] / one["1"] for one in found) for task, found in samples.items()},
        "samples": samples,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "env_processes.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary["ratio"]))


if __name__ == "__main__":
    main()
