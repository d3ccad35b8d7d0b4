"""The faults. Each disturbs a run, mends what a user would mend, and returns (result, detail).

Its function decides when and how (from the random numbers of its case), requires what must show on the way, and ends
with the same command run to its end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from fault_stage import (
    ENDED_FIRST,
    PHASES,
    POLITE_SECONDS,
    Process,
    SkippedError,
    Stage,
    checkpoints,
    contents,
    difference,
    finish,
    meaning,
    memory_cgroup,
    newest_whole,
    require,
    require_refusal,
    small_disk,
)

from vaco.control import collect as collecting
from vaco.control import train as training
from vaco.runs import lock, provenance
from vaco.runs.live import LIVE

Fault = Callable[[Stage], tuple[str, str]]
FAULTS: dict[str, tuple[int, str, Fault]] = {}


def fault(kind: str, cases: int, description: str) -> Callable[[Fault], Fault]:
    """Enter a fault into the campaign."""

    def enter(function: Fault) -> Fault:
        FAULTS[kind] = (cases, description, function)
        return function

    return enter


@fault("sigkill", 20, "SIGKILL at a random moment, up to three times in succession")
def _sigkill(stage: Stage) -> tuple[str, str]:
    kills = 0
    for _ in range(stage.random.randint(1, 3)):
        process = stage.start()
        time.sleep(stage.moment())
        kills += process.poll() is None
        process.kill()
        if process.code == 0:
            break
    if not kills:
        raise SkippedError(ENDED_FIRST)
    done = (stage.out / "manifest.json").exists()
    newest = 0 if done else newest_whole(stage.out)
    return finish(stage, resumed_from=newest), f"{kills} kills, newest checkpoint {newest}"


@fault("sigkill_in_write", 16, "SIGKILL inside the write of a checkpoint or of the final files, the file torn")
def _sigkill_in_write(stage: Stage) -> tuple[str, str]:
    write, at = stage.random.randint(1, 21), stage.random.choice(("before fsync", "before rename", "after rename"))
    share = stage.random.random()

    def sabotage() -> None:
        calls = 0
        fsync, replace = os.fsync, Path.replace

        def torn(descriptor: int) -> None:
            nonlocal calls
            calls += 1
            if calls >= write and at == "before fsync":
                with suppress(OSError):  # a folder cannot be truncated
                    os.truncate(descriptor, int(share * os.fstat(descriptor).st_size))
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(descriptor)

        def stopped(path: Path, target: Any) -> Path:
            if calls >= write and at == "before rename":
                os.kill(os.getpid(), signal.SIGKILL)
            result = replace(path, target)
            if calls >= write and at == "after rename":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        os.fsync, Path.replace = torn, stopped  # type: ignore[assignment]

    process = stage.start(sabotage)
    require(process.wait() == -signal.SIGKILL, f"it was to die in write {write}, but ended with {process.code}")
    done = (stage.out / "manifest.json").exists()
    newest = 0 if done else newest_whole(stage.out)
    return finish(stage, resumed_from=newest), f"{at} of write {write}, newest checkpoint {newest}"


@fault("sigterm", 18, "SIGTERM at a random moment: a checkpoint and exit code 75 within 5 s")
def _sigterm(stage: Stage) -> tuple[str, str]:
    process = stage.start(every=300.0)
    time.sleep(stage.moment())
    begun = (stage.out / "run.json").exists()
    sent = time.monotonic()
    if process.poll() is not None:
        raise SkippedError(ENDED_FIRST)
    process.signal(signal.SIGTERM)
    code = process.wait()
    seconds = time.monotonic() - sent
    require(seconds < POLITE_SECONDS, f"it took {seconds:.1f} s to stop")
    require(code in (0, 75) or (code == -signal.SIGTERM and not checkpoints(stage.out)), f"exit code {code}")
    newest = newest_whole(stage.out)
    if code == 75:
        require(newest > 0 and begun, "it stopped politely but left no checkpoint")
    return finish(stage, resumed_from=newest), f"exit code {code} after {seconds:.2f} s, checkpoint {newest}"


@fault("truncated_checkpoint", 10, "the newest checkpoint cut off at a random length")
def _truncated_checkpoint(stage: Stage) -> tuple[str, str]:
    stored = stage.begin_half()
    newest = max(stored)
    size = stored[newest].stat().st_size
    length = stage.random.choice((0, 7, 8, size - 1, stage.random.randrange(size)))
    os.truncate(stored[newest], length)
    return finish(stage, resumed_from=newest - 1, damaged=[newest]), f"cut to {length} of {size} bytes"


@fault("flipped_bit", 10, "one bit of the newest checkpoint flipped, or of both")
def _flipped_bit(stage: Stage) -> tuple[str, str]:
    stored = stage.begin_half()
    damaged = stage.random.choice(([max(stored)], sorted(stored)))
    altered = []  # a bit that changes nothing, such as that of a capital E in an exponent, may go unnoticed
    for phase in damaged:
        before = stored[phase].read_bytes()
        data = bytearray(before)
        data[stage.random.randrange(len(data))] ^= 1 << stage.random.randrange(8)
        stored[phase].write_bytes(data)
        if meaning(bytes(data)) != meaning(before):
            altered.append(phase)
    newest = newest_whole(stage.out)
    require(newest not in altered, "a flipped bit was not noticed")
    require(newest >= max(set(stored) - set(damaged), default=0), "a checkpoint that is whole was refused")
    damaged_ones = [phase for phase in altered if phase > newest]
    return finish(stage, resumed_from=newest, damaged=damaged_ones), f"checkpoints {damaged} flipped"


@fault("deleted_checkpoint", 8, "the newest checkpoint deleted, or all of them, or the marker too")
def _deleted_checkpoint(stage: Stage) -> tuple[str, str]:
    stored = stage.begin_half()
    what = stage.random.choice(("newest", "all", "folder"))
    if what == "folder":
        shutil.rmtree(stage.out / "checkpoints")
        (stage.out / "run.json").unlink()
        # The rows as they came are left: whose they are, nothing says any more.
        require_refusal(stage.start(), "not part of a run", "an empty or new folder")
        for table in LIVE:
            (stage.out / table).unlink()
    else:
        for phase in [max(stored)] if what == "newest" else list(stored):
            stored[phase].unlink()
    return finish(stage, resumed_from=newest_whole(stage.out)), f"deleted: {what}"


@fault("full_disk", 8, "a file system of random size that fills up; then room is made")
def _full_disk(stage: Stage) -> tuple[str, str]:
    size = stage.random.randint(40, 800)  # three checkpoints, two kept and one being written, are 915 KiB
    with small_disk(stage.place / "disk", size) as disk:
        stage.place = disk
        said = disk.parent / "said"
        first = Process(stage.command(), said)
        require_refusal(first, "disk is full")
        newest = newest_whole(stage.out)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        return finish(stage, resumed_from=newest), f"{size} KiB, refused; checkpoint {newest} was kept"


@fault("read_only", 10, "the file system turns read-only at a random moment; then writable again")
def _read_only(stage: Stage) -> tuple[str, str]:
    with small_disk(stage.place / "disk", 65536) as disk:
        stage.place = disk
        first = Process(stage.command(), disk.parent / "said")
        time.sleep(stage.moment())
        # Busy while a file is open for writing.
        until = time.monotonic() + 20
        while subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True).returncode:
            require(time.monotonic() < until, "could not remount")
        if first.wait() == 0:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            raise SkippedError(ENDED_FIRST)
        require_refusal(first)
        newest = newest_whole(stage.out)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        return finish(stage, resumed_from=newest), f"refused; checkpoint {newest} was kept"


@fault("clock", 8, "the clock jumps back by up to a year, and files lie in the future")
def _clock(stage: Stage) -> tuple[str, str]:
    stored = stage.begin_half()
    back = stage.random.choice((60.0, 3600.0, 86_400.0, 31_536_000.0))
    ahead = time.time() + back
    for path in [*stored.values(), stage.out / "run.json"]:
        os.utime(path, (ahead, ahead))
    after = stage.random.randint(0, 30)

    def sabotage() -> None:
        calls = 0
        real = time.time

        def jumping() -> float:
            nonlocal calls
            calls += 1
            return real() - (back if calls > after else 0.0)

        class Jumping(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return datetime.fromtimestamp(jumping(), tz or UTC)

        time.time = jumping
        time.time_ns = lambda: int(jumping() * 1e9)
        provenance.datetime = lock.datetime = Jumping  # type: ignore[attr-defined]

    process = stage.start(sabotage)
    require(process.wait() == 0, f"exit code {process.code}: {process.words[-300:]}")
    require("resuming" in process.words, "it did not resume")
    found = difference(stage.undisturbed, stage.out)
    return ("identical" if found is None else f"SILENT DIFFERENCE: {found}"), f"{timedelta(seconds=back)} back"


@fault("two_writers", 8, "two processes on one folder, a moment apart")
def _two_writers(stage: Stage) -> tuple[str, str]:
    delay = stage.random.choice((0.0, stage.random.uniform(0.0, 0.05), stage.random.uniform(0.0, stage.seconds)))
    one = stage.start()
    time.sleep(delay)
    two = stage.start()
    codes = sorted((one.wait(), two.wait()))
    said = one.words + two.words
    if codes == [0, 0]:
        require("nothing to do" in said, "both trained")
    else:
        require(codes == [0, 2], f"exit codes {codes}: {said[-300:]}")
        loser, winner = (two, one) if two.code == 2 else (one, two)
        require_refusal(loser, "in use by process", str(winner.pid), os.uname().nodename)
    found = difference(stage.undisturbed, stage.out)
    return ("identical" if found is None else f"SILENT DIFFERENCE: {found}"), f"{delay:.2f} s apart, exit codes {codes}"


@fault("nan_reward", 8, "a NaN in the rewards of a random phase and actor: refused, and nothing poisoned is kept")
def _nan_reward(stage: Stage) -> tuple[str, str]:
    phase, actor = stage.random.randint(1, PHASES), stage.random.randrange(16)

    def sabotage() -> None:
        collect, count = collecting.Collector.collect, 0

        def poisoned(self: Any, *generators: Any) -> Any:
            nonlocal count
            count += 1
            batch = collect(self, *generators)
            if count == phase:
                batch.rewards[stage.random.randrange(len(batch.rewards)), actor] = np.nan
            return batch

        collecting.Collector.collect = poisoned  # type: ignore[assignment,method-assign]

    process = stage.start(sabotage)
    require_refusal(process, f"phase {phase}", f"actor {actor}", "reward")
    require(newest_whole(stage.out) == phase - 1, "the last good checkpoint was not kept")
    return finish(stage, resumed_from=phase - 1), f"phase {phase}, actor {actor}"


@fault("out_of_memory", 6, "the kernel's out-of-memory killer, in a memory cgroup, at a random phase")
def _out_of_memory(stage: Stage) -> tuple[str, str]:
    phase = stage.random.randint(1, PHASES)
    with memory_cgroup(f"vaco-faults-{os.getpid()}-{time.monotonic_ns()}") as join:

        def sabotage() -> None:
            advance, hoard = training.Run.advance, []
            join(512 << 20)

            def greedy(self: Any) -> Any:
                if self.phase + 1 == phase:
                    while True:
                        hoard.append(np.ones(8 << 20, dtype=np.uint8))
                return advance(self)

            training.Run.advance = greedy  # type: ignore[method-assign]

        process = stage.start(sabotage)
        code = process.wait()
    require(code == -signal.SIGKILL, f"it was to be killed, but ended with {code}: {process.words[-300:]}")
    newest = newest_whole(stage.out)
    require(newest == phase - 1, f"checkpoint {newest} is the newest, {phase - 1} was expected")
    return finish(stage, resumed_from=newest), f"killed in phase {phase}"


@fault("dead_holder", 8, "the lock of a dead process, of a silent other host, or of a live other host")
def _dead_holder(stage: Stage) -> tuple[str, str]:
    newest = max(stage.begin_half())
    who = stage.random.choice(("dead process", "silent host", "live host", "torn lock"))
    held = stage.out / "run.lock"
    holder = os.fork()
    if holder == 0:
        try:
            lock.RunLock(held).acquire()
        finally:
            os._exit(0)
    os.waitpid(holder, 0)
    if who == "torn lock":
        held.write_text("", encoding="utf-8")
    elif who != "dead process":
        record = json.loads(held.read_text(encoding="utf-8")) | {"host": "node17", "boot": "of-node17"}
        held.write_text(json.dumps(record), encoding="utf-8")
    if who in ("silent host", "torn lock"):
        old = time.time() - 2 * lock.STALE_AFTER
        os.utime(held, (old, old))
    if who != "live host":
        return finish(stage, resumed_from=newest), f"{who}, taken over"
    before = contents(stage.out)
    require_refusal(stage.start(), "node17")
    require(contents(stage.out) == before, "the refusal changed the folder")
    return "refused", f"{who} was named, nothing was touched"


@fault("damaged_result", 6, "a finished table or manifest altered: refused, never retrained or believed")
def _damaged_result(stage: Stage) -> tuple[str, str]:
    shutil.copytree(stage.undisturbed, stage.out)
    name = stage.random.choice(("phases.parquet", "evals.parquet", "policy.safetensors", "manifest.json"))
    data = bytearray((stage.out / name).read_bytes())
    if name == "manifest.json":
        data = data[: stage.random.randrange(len(data) - 2)]
    else:
        data[stage.random.randrange(len(data))] ^= 1 << stage.random.randrange(8)
    (stage.out / name).write_bytes(data)
    before = contents(stage.out)
    require_refusal(stage.start(), name, "damaged")
    require(contents(stage.out) == before, "the refusal changed the folder")
    return "refused", f"{name} altered"
