"""Asynchronous training on two cores beside the synchronous loop on one, and what the record of it costs.

    python benchmarks/asynchronous.py --out benchmarks/out/asynchronous.json
    python benchmarks/asynchronous.py --updates 5 --rounds 1 --out /tmp/quick.json

HalfCheetah, 16 environments x 128 steps a batch, equal hyper-parameters, evaluation left out. The contestants take
turns in every round, each in a process of its own, so that a drifting machine slows all of them alike; reported are
medians over the rounds and of ratios within a round:

* `synchronous`: the run of `vaco train --lag 1`, pinned to the first core;
* `asynchronous`: the same batch from two actors in processes, learner and actors pinned to the first two cores;
* `replay`: the asynchronous run's own schedule, pinned to the first core, beside `simulated`, `--lag 2`, there too.

Also: the learner's busy share and the actors' idle share, the time from a policy's publication until a reader in
another process has it, the part of the time that the record takes, and the memory of one actor (what it shares with
nobody, and its proportional share of what is shared). The load of the machine before and after is written down: on a
machine that is busy with other things, the numbers say little.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from vaco.command import Parser, run_command
from vaco.demonstrations.measure import machine
from vaco.paths import path_flag

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

SETTINGS: dict[str, Any] = {"env": "HalfCheetah-v5", "eval_points": 1, "eval_episodes": 1}
WARM_UP = 5
CORES = {"synchronous": 1, "simulated": 1, "replay": 1, "asynchronous": 2}


def advance(run: Any, updates: int) -> dict[str, float]:
    """Steps a second after the warm-up, and the part of the time in which the learner learns."""
    for _ in range(WARM_UP):
        run.advance()
    started = time.perf_counter()
    for _ in range(updates):
        run.advance()
    elapsed, rows = time.perf_counter() - started, run.rows[-updates:]
    busy = sum(row["align_seconds"] + row["update_seconds"] for row in rows)
    return {"steps_per_second": updates * run.config.batch / elapsed, "learner_busy": busy / elapsed}


def simulated(lag: int, updates: int) -> dict[str, float]:
    """The loop that collects itself."""
    from vaco.control.train import Run
    from vaco.runs.config import build

    return advance(Run(build({**SETTINGS, "lag": lag, "steps": 10_000_000})), updates)


def asynchronous(updates: int, schedule: Path) -> dict[str, float]:
    """Two actors beside the learner; leaves its schedule."""
    from vaco.control.asynchronous.run import LiveRun
    from vaco.runs.config import build
    from vaco.runs.tables import write_parquet

    run = LiveRun(build({**SETTINGS, "actors": 2, "steps": 10_000_000}))
    recording = 0.0
    add = run.journal.add

    def timed(entries: Any) -> None:
        nonlocal recording
        began = time.perf_counter()
        add(entries)
        recording += time.perf_counter() - began

    run.journal.add = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        run.start(Path(folder))
        try:
            began = time.perf_counter()
            found = advance(run, updates)
            found["recording"] = recording / (time.perf_counter() - began)
            seconds = run.engine.seconds  # type: ignore[union-attr]
            found["actors_idle"] = seconds["waited"] / max(sum(seconds.values()), 1e-9)
            memory = [_memory(pid) for pid in run.engine.pids]  # type: ignore[union-attr]
            found |= {f"actor_{name}_mb": median(one[name] for one in memory) for name in memory[0]}
        finally:
            run.stop()
    ages = [row["age_mean"] for row in run.rows[WARM_UP:]]
    found["mean_age"] = sum(ages) / len(ages)
    write_parquet(schedule, run.more_tables()["schedule.parquet"])
    return found


def replay(updates: int, schedule: Path) -> dict[str, float]:
    """The same schedule in one process."""
    from vaco.control.asynchronous.run import RecordedRun
    from vaco.runs.config import build

    steps = (WARM_UP + updates) * 2048
    return advance(RecordedRun(build({**SETTINGS, "steps": steps, "lag": f"file:{schedule}"})), updates)


def _memory(pid: int) -> dict[str, float]:
    """Megabytes: private, and proportional."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    return {"private": (values["Private_Clean"] + values["Private_Dirty"]) / 1024, "proportional": values["Pss"] / 1024}


def _read(memory: Any, size: int, results: Any, count: int) -> None:
    """In another process: look for a newer policy all the time, and send back when each was there."""
    from vaco.control.asynchronous.worker import Board

    board, seen = Board(memory, size), 0
    results.send(None)
    while seen < count:
        if board.turns != seen:
            seen, version, _ = board.get()
            results.send((version, time.monotonic()))


def latency(count: int = 200) -> dict[str, float]:
    """Milliseconds from the beginning of `Board.put` until a reader has the policy, median and 99th percentile."""
    import numpy as np

    from vaco.control.asynchronous.worker import Board, shared

    context = multiprocessing.get_context("spawn")
    size = 12_000  # HalfCheetah's networks and statistics
    memory = shared(context, Board.bytes_needed(size))
    ours, theirs = context.Pipe(duplex=False)
    reader = context.Process(target=_read, args=(memory, size, theirs, count), daemon=True)
    reader.start()
    ours.recv()
    board, numbers, sent = Board(memory, size), np.ones(size, np.float32).tobytes(), {}
    for version in range(count):
        sent[version] = time.monotonic()
        board.put(version, numbers)
        time.sleep(0.005)
    delays = []
    while ours.poll(1.0):
        version, there = ours.recv()
        delays.append(1e3 * (there - sent[version]))
        if version == count - 1:
            break
    reader.kill()
    return {"median_ms": float(np.median(delays)), "p99_ms": float(np.quantile(delays, 0.99)), "policies": len(delays)}


def contestant(name: str, updates: int, schedule: Path) -> dict[str, float]:
    """One measurement, in this process."""
    from vaco import stopwatch

    available = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, available[: CORES[name]])
    stopwatch.stop()
    if name == "asynchronous":
        return asynchronous(updates, schedule)
    return replay(updates, schedule) if name == "replay" else simulated({"simulated": 2}.get(name, 1), updates)


def render(record: dict[str, Any]) -> str:
    """The table of the book."""
    live, weights = record["medians"]["asynchronous"], record["weights"]
    rows = [
        (
            "two actors on two cores, speed relative to the synchronous loop on one",
            "asynchronous_to_synchronous",
            "≥ 1.5",
        ),
        ("replay, speed relative to the simulated trainer", "replay_to_simulated", "≥ 1"),
    ]
    lines = [f"| {name} | {record[key]:.2f} | {target} |" for name, key, target in rows]
    lines += [
        f"| recording the schedule, share of time | {100 * live['recording']:.2f} % | ≤ 1 % |",
        f"| a policy's way to an actor, median (99th percentile) | {weights['median_ms']:.2f} ms "
        f"({weights['p99_ms']:.2f} ms) | ≤ 5 ms |",
        f"| memory of one more actor that it shares with nobody | {live['actor_private_mb']:.0f} MB | ≤ 250 MB |",
        f"| the learner learns, share of time | {100 * live['learner_busy']:.0f} % | |",
        f"| actors wait for room, share of time | {100 * live['actors_idle']:.0f} % | |",
    ]
    where = record["machine"]
    made = (
        f"{where['cpu']}, {where['cores']} cores, load {where['load_1min']:.1f} before, HalfCheetah-v5, "
        f"{record['rounds']} rounds of {record['updates']} updates of 2,048 steps; medians over the rounds."
    )
    return "\n".join(["| | measured | target |", "|---|---|---|", *lines, "", made]) + "\n"


def main() -> int:
    """The command; see the module's docstring."""
    parser = Parser(prog="python benchmarks/asynchronous.py", description="Asynchronous training, measured.")
    parser.add_argument("--out", type=path_flag, required=True, help="the JSON file to write, with a table beside it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=40)
    parser.add_argument("--worker", choices=sorted(CORES), help="for the benchmark itself")
    parser.add_argument("--schedule", type=path_flag, help="for the benchmark itself")
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(contestant(given.worker, given.updates, given.schedule)))
        return 0
    before = machine()
    rounds: dict[str, list[dict[str, float]]] = {
        name: [] for name in ("synchronous", "simulated", "asynchronous", "replay")
    }
    with tempfile.TemporaryDirectory() as folder:
        schedule = Path(folder, "schedule.parquet")
        for _ in range(given.rounds):
            for name, found in rounds.items():
                words = ["--worker", name, "--updates", str(given.updates), "--out", os.devnull, "--schedule", schedule]
                said = subprocess.check_output([sys.executable, __file__, *map(str, words)], encoding="utf-8")
                found.append(json.loads(said))
                print(f"{name:13s} {found[-1]['steps_per_second']:8,.0f} steps/s", file=sys.stderr, flush=True)
    summary = {n: {key: median(one[key] for one in found) for key in found[0]} for n, found in rounds.items()}

    def ratio(first: str, second: str) -> float:
        pairs = zip(rounds[first], rounds[second], strict=True)
        return median(a["steps_per_second"] / b["steps_per_second"] for a, b in pairs)

    record = {
        "machine": before,
        "load_after": os.getloadavg()[0],
        "rounds": given.rounds,
        "updates": given.updates,
        "medians": summary,
        "asynchronous_to_synchronous": ratio("asynchronous", "synchronous"),
        "replay_to_simulated": ratio("replay", "simulated"),
        "weights": latency(),
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    given.out.with_suffix(".md").write_text(render(record), encoding="utf-8")
    print(render(record))
    return 0


if __name__ == "__main__":
    run_command(main)
