"""A run that trains nothing: it locks its folder, saves, fails at given rates, leaves a manifest, is in a ledger.

Called as `vaco train` is. `VACO_SIMULATED` has JSON: `seconds` a phase, `phases`, and for each way to end a phase early
its probability: `kill` (by signal 9), `refuse` (a sentence), `stop` (code 75). What happens is a function of the run,
the attempt and the phase, so that a test repeats.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from vaco.errors import UserError
from vaco.runs import attempts
from vaco.runs.lock import RunLock, waiting
from vaco.runs.preemption import Preempted, termination_noticed

SETTINGS = {"seconds": 0.01, "phases": 4, "kill": 0.0, "refuse": 0.0, "stop": 0.0} | json.loads(
    os.environ.get("VACO_SIMULATED", "{}")
)


def chance(*of: object) -> float:
    digest = hashlib.sha256(repr(of).encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def train(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lock = RunLock(folder / "run.lock")
    lock.acquire()
    try:
        phase, attempt = next(iter(attempts.saved(folder)), 0), len(attempts.history(folder))
        with termination_noticed() as asked:
            while phase < SETTINGS["phases"]:
                time.sleep(SETTINGS["seconds"])
                luck = chance(folder.name, attempt, phase)
                if luck < SETTINGS["kill"]:
                    os.kill(os.getpid(), signal.SIGKILL)
                if luck < SETTINGS["kill"] + SETTINGS["refuse"]:
                    raise UserError("the simulated run failed: nothing can be done")
                phase += 1
                save(folder, phase)
                lock.heartbeat()
                if (asked() or luck > 1 - SETTINGS["stop"]) and phase < SETTINGS["phases"]:
                    raise Preempted(f"asked to stop at {phase}")
        with (folder.parents[4] / "ledger.txt").open("a") as ledger:
            ledger.write(f"{folder.name}\n")
        record = {"status": "complete", "wall_seconds": SETTINGS["phases"] * SETTINGS["seconds"], "completed_steps": 1}
        (folder / "manifest.json").write_text(json.dumps(record))
        for path in (folder / "checkpoints").iterdir():
            path.unlink()
    finally:
        lock.release()


def save(folder: Path, phase: int) -> None:
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / f"checkpoint-{phase:012d}.safetensors").write_text(str(phase))
    for number in list(attempts.saved(folder))[2:]:
        (folder / "checkpoints" / f"checkpoint-{number:012d}.safetensors").unlink()


def main(words: list[str]) -> int:
    folder = Path(words[words.index("--out") + 1])
    wait = float(words[words.index("--wait") + 1]) if "--wait" in words else 0.0
    try:
        with attempts.recorded(folder):
            waiting(wait, lambda: train(folder))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except Preempted:
        return 75
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
