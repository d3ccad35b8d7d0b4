"""Jobs that SLURM forgets: Snakemake's plugin would wait for them for ever, so they are told to it as ended.

The plugin believes in a job until `squeue` says that it ended. One that was lost with its controller, or that ended
and was dropped between two looks, is never spoken of again. So the workflow puts two commands of these names before
SLURM's own (`install`): `sbatch` writes down what was submitted; `squeue` adds, to an answer that lacks such a job for
so many seconds (`PATIENCE`), what is known of it otherwise:

* its run is complete, by the manifest: COMPLETED;
* its run is at work, by the heartbeat of its lock: nothing, it is waited for;
* else: FAILED, so that it is submitted again, and continues from its checkpoint.

Everything else of both commands, and every failure of theirs, is passed through. Only what a job needs is imported.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from vaco.runs.lock import STALE_AFTER

PATIENCE = "VACO_LOST_AFTER"
"""Environment variable with the seconds for which a job must be missing; by default 400, two looks and more."""
HERE = "VACO_QUEUE"
"""Environment variable with the folder of these commands, so that they find SLURM's behind it."""
COMMANDS = ("sbatch", "squeue")
RUNS = Path("results/runs")


def install(folder: Path) -> None:
    """Put the commands into a folder, and the folder before all others of the search path.

    Args:
        folder: theirs alone; created if needed.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in COMMANDS:
        file = folder / name
        text = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m vaco.campaign.lost {name} "$@"\n'
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            file.chmod(0o755)
    os.environ[HERE] = str(folder)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"


def main(words: Sequence[str]) -> int:
    """Be one of the commands; returns its exit code."""
    name, *arguments = words
    real = _real(name)
    if real is None:
        print(f"{name}: command not found", file=sys.stderr)
        return 127
    # Without this package's folder of commands, so that SLURM's own tools do not find them.
    done = subprocess.run([real, *arguments], stdout=subprocess.PIPE, encoding="utf-8", errors="replace")
    sys.stdout.write(done.stdout)
    call = _option(arguments, "--job-name" if name == "sbatch" else "--name")
    if done.returncode == 0 and call is not None:
        with suppress(OSError):  # what cannot be written down is as it was before there were these commands
            if name == "sbatch":
                _note(call, done.stdout.strip().split(";")[0], _option(arguments, "--comment") or "")
            elif _option(arguments, "--format") == "%i|%T":
                known = {line.partition("|")[0].strip() for line in done.stdout.splitlines()}
                for job, state in verdicts(call, known, time.time()):
                    print(f"{job}|{state}")
    sys.stdout.flush()
    return done.returncode


def verdicts(call: str, known: set[str], now: float) -> Iterator[tuple[str, str]]:
    """What is to be added to an answer of the queue.

    Args:
        call: the name under which a workflow's call submits.
        known: the jobs in the answer.
        now: seconds since 1970.

    Yields:
        Number and state of each job that is missing for long and not at work.
    """
    noted, missing = _noted(call), _read(_place(call, "missing"))
    gone = {job: float(missing.get(job, now)) for job in noted if job not in known}
    _write(_place(call, "missing"), gone)
    patience = float(os.environ.get(PATIENCE) or 400)
    for job, since in gone.items():
        state = _state(noted[job], now) if now - since >= patience else None
        if state is not None:
            yield job, state


def _state(comment: str, now: float) -> str | None:
    """What a run's folder says of a job, by the plugin's comment on it, in which all slashes are underscores."""
    place = re.fullmatch(r"rule_(?:lm_)?train_wildcards_(.+)", comment)
    for run in _folders(place[1]) if place else ():
        if (run / "manifest.json").is_file():
            return "COMPLETED"
        with suppress(OSError):
            if now - (run / "run.lock").stat().st_mtime < STALE_AFTER:
                return None
    return "FAILED"


def _folders(flat: str) -> Iterator[Path]:
    """The run folders whose path reads so when its slashes are underscores."""
    for folder in RUNS.rglob(f"{flat.rpartition('_')[2]}"):
        if str(folder.relative_to(RUNS)).replace("/", "_") == flat:
            yield folder


def _option(arguments: Sequence[str], name: str) -> str | None:
    """The value of an option, written with a blank or an equals sign."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _real(name: str) -> str | None:
    """SLURM's own command: the first of that name that is not ours."""
    ours = os.environ.get(HERE, "")
    for place in os.get_exec_path():
        file = Path(place, name)
        if place != ours and file.is_file() and os.access(file, os.X_OK):
            return str(file)
    return None


def _place(call: str, what: str) -> Path:
    return Path(os.environ.get(HERE, "."), f"{re.sub(r'[^A-Za-z0-9._-]', '_', call)}.{what}.json")


def _note(call: str, job: str, comment: str) -> None:
    if job.isdigit():
        with _place(call, "jobs").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([job, comment]) + "\n")


def _noted(call: str) -> dict[str, str]:
    found = {}
    with suppress(OSError):
        for line in _place(call, "jobs").read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                job, comment = json.loads(line)
                found[str(job)] = str(comment)
    return found


def _read(path: Path) -> dict[str, float]:
    with suppress(OSError, ValueError):
        content = json.loads(path.read_bytes())
        return content if isinstance(content, dict) else {}
    return {}


def _write(path: Path, content: dict[str, float]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
