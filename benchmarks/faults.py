"""Inject faults into real training processes and ask whether anything is lost or, worse, silently different.

    python benchmarks/faults.py                     # the whole campaign; writes benchmarks/out/faults.*
    python benchmarks/faults.py --kinds sigterm     # one kind
    python benchmarks/faults.py --share 0.1         # a tenth of every kind

A case starts the same short run (Hopper-v5, six phases) in a folder of its own, disturbs it, mends what a user would
mend (makes room, remounts, does nothing), and runs the same command until it ends. Outcomes:

* `identical`: it ended, and its tables and policy are bit for bit those of the undisturbed run, clocks apart;
* `refused`: it ended with one clear sentence and exit code 2, and no file was changed;
* `SILENT DIFFERENCE`, `FAILED`: everything else, which must not happen.

Where a case says so, it also requires what the fault must show on the way: exit code 75 within five seconds of SIGTERM,
a sentence that names the holder of a lock, resumption from the newest checkpoint that was whole.

The faults themselves are in `fault_kinds.py`, those of runs with actors of their own, which are judged by the replay of
their schedule, in `fault_async.py`; what they work with (the run, its process, the comparison of folders,
the means that need root) is in `fault_stage.py`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fault_async  # noqa: F401  enters its faults
from fault_kinds import FAULTS
from fault_stage import SETTINGS, Process, SkippedError, Stage, WrongError, checkpoints, difference

from vaco.command import Parser, run_command
from vaco.control import train as training
from vaco.errors import UserError
from vaco.paths import path_flag
from vaco.runs import atomic, provenance

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Outcome:
    """What became of one case."""

    kind: str
    case: int
    result: str
    detail: str
    seconds: float


def prepare(place: Path) -> tuple[Path, Path, float]:
    """The undisturbed run, made by the real command; one stopped after phase four; the seconds a forked run takes."""
    place.mkdir(parents=True, exist_ok=True)
    undisturbed, half = place / "undisturbed", place / "half"
    stage = Stage(place, random.Random(0), undisturbed, half, 0.0)
    command = [sys.executable, "-m", "vaco", *stage.command(undisturbed, every=300.0)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    started = time.monotonic()
    again = Process(stage.command(place / "again"), place / "said-again")
    if again.wait() != 0 or difference(undisturbed, place / "again"):
        raise SystemExit(f"the undisturbed run does not repeat itself: {again.words}")
    seconds = time.monotonic() - started

    def stop_after_four() -> None:
        advance = training.Run.advance

        def stopping(run: Any) -> Any:
            if run.phase == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return advance(run)

        training.Run.advance = stopping  # type: ignore[assignment,method-assign]

    Process(stage.command(half), place / "said-half", stop_after_four).wait()
    if sorted(checkpoints(half)) != [3, 4]:
        raise SystemExit("a run stopped after phase four must hold the checkpoints of phases three and four")
    return undisturbed, half, seconds


def campaign(kinds: list[str], share: float, seed: int, place: Path, say: Callable[[str], None]) -> list[Outcome]:
    """Run every case, one after the other."""
    undisturbed, half, seconds = prepare(place)
    outcomes = []
    for kind in kinds:
        cases, _, inject = FAULTS[kind]
        for case in range(max(1, round(cases * share))):
            folder = place / f"{kind}{case}"
            folder.mkdir()
            started = time.monotonic()
            stage = Stage(folder, random.Random(f"{seed}/{kind}/{case}"), undisturbed, half, seconds)
            try:
                result, detail = inject(stage)
            except SkippedError as reason:
                result, detail = "skipped", str(reason)
            except (WrongError, AssertionError, OSError, subprocess.SubprocessError) as wrong:
                result, detail = "FAILED", str(wrong)
            outcomes.append(Outcome(kind, case, result, detail, round(time.monotonic() - started, 2)))
            say(f"{kind} {case}: {result} ({detail})")
            shutil.rmtree(folder, ignore_errors=True)
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    """The result as a Markdown table."""
    results = ("identical", "refused", "skipped")
    lines = ["| fault | injected | same bits | refused, nothing lost | silent differences or losses |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    total = [0] * 4
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        of_kind = [outcome for outcome in outcomes if outcome.kind == kind and outcome.result != "skipped"]
        counts = [sum(outcome.result == result for outcome in of_kind) for result in results[:2]]
        row = [len(of_kind), *counts, len(of_kind) - sum(counts)]
        total = [one + other for one, other in zip(total, row, strict=True)]
        lines.append(f"| {FAULTS[kind][1]} | " + " | ".join(map(str, row)) + " |")
    lines.append("| **all** | " + " | ".join(f"**{number}**" for number in total) + " |")
    return "\n".join(lines) + "\n"


def kept(folder: Path, kinds: list[str], seed: int) -> list[Outcome]:
    """What a folder's record has of the kinds that are not run now.

    Raises:
        UserError: it has none, or of other code or another seed.
    """
    path = folder / "faults.json"
    if not path.is_file():
        raise UserError(f"there is no {path} whose other kinds could be kept: leave out --keep")
    old = json.loads(path.read_text(encoding="utf-8"))
    if (old["source_digest"], old["seed"]) != (provenance.source_digest(), seed):
        raise UserError(f"{path} is of other code or another seed: leave out --keep, and run all kinds")
    return [Outcome(**case) for case in old["cases"] if case["kind"] not in kinds]


def main() -> int:
    """The command; see the module's docstring."""
    parser = Parser(description="Inject faults into training and count what they change.")
    parser.add_argument("--kinds", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="KIND")
    parser.add_argument("--share", type=float, default=1.0, help="share of the cases of every kind, at least one each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=path_flag, default=HERE / "out", metavar="DIR")
    parser.add_argument(
        "--keep", action="store_true", help="keep what DIR has of the other kinds, if of the same code and seed"
    )
    options = parser.parse_args()
    started = time.monotonic()
    others = kept(options.out, options.kinds, options.seed) if options.keep else []
    with tempfile.TemporaryDirectory(prefix="vaco-faults-") as place:
        outcomes = campaign(
            options.kinds, options.share, options.seed, Path(place), lambda line: print(line, flush=True)
        )
    outcomes = sorted(others + outcomes, key=lambda outcome: list(FAULTS).index(outcome.kind))
    bad = [outcome for outcome in outcomes if outcome.result not in ("identical", "refused", "skipped")]
    options.out.mkdir(parents=True, exist_ok=True)
    revision, dirty = provenance.source_revision()
    record = {
        "revision": revision,
        "dirty": dirty,
        "source_digest": provenance.source_digest(),
        "seed": options.seed,
        "run": SETTINGS,
        "seconds": round(time.monotonic() - started),
        "injected": sum(outcome.result != "skipped" for outcome in outcomes),
        "skipped": sum(outcome.result == "skipped" for outcome in outcomes),
        "silent_differences_or_losses": len(bad),
        "cases": [asdict(outcome) for outcome in outcomes],
    }
    atomic.write_bytes(options.out / "faults.json", (json.dumps(record, indent=1) + "\n").encode())
    atomic.write_bytes(options.out / "faults.md", table(outcomes).encode())
    print("\n" + table(outcomes))
    return 1 if bad else 0


if __name__ == "__main__":
    run_command(main)
