"""Train a list of cases in one process, with whatever revision of `vaco` PYTHONPATH names.

    PYTHONPATH=TREE/src python -P benchmarks/golden_train.py JOBS.json PLACE

It is run once a revision by `golden.py`, also for old revisions, so that it may use only what does not change between
them: the command line, through ``vaco.cli.run``, and that a run's checkpoints are renamed into a folder below its own.
JOBS.json holds ``{"source": DIR, "jobs": [{"name": …, "arguments": […], "stop_after": …}, …]}``; PLACE receives what
the commands write and, as ``outcomes.json``, the exit code of each and what it said.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

INTERRUPTED = 75


class Alarm:
    """Sends SIGTERM to this process when the n-th file is renamed into a folder below a run's own."""

    def __init__(self) -> None:
        """Set for no run yet."""
        self.out, self.left = Path(), 0
        sys.addaudithook(self._hear)

    def set(self, out: Path, checkpoints: int) -> None:
        """Wait for some checkpoints of the run in `out`."""
        self.out, self.left = out, checkpoints

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "os.rename" or not self.left:
            return
        if self.out in Path(os.fsdecode(arguments[1])).parent.parents:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGTERM)


def run(job: dict[str, Any], place: Path, alarm: Alarm) -> tuple[int, str]:
    """One job: exit code 0 if all went as it should, and what was said."""
    arguments = [word.replace("{place}", str(place)) for word in job["arguments"]]
    out = Path(arguments[arguments.index("--out") + 1])
    out.parent.mkdir(parents=True, exist_ok=True)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        if job["stop_after"]:
            alarm.set(out, job["stop_after"])
            before = signal.signal(signal.SIGTERM, lambda _signal, _frame: None)  # one that comes too late kills nobody
            code = command(arguments)
            signal.signal(signal.SIGTERM, before)
            alarm.set(Path(), 0)
            if code != INTERRUPTED:
                return code or 1, f"SIGTERM should have ended it with exit code 75, not {code}: {said.getvalue()}"
        code = command(arguments)
    return code, " ".join(said.getvalue().split())


def command(arguments: list[str]) -> int:
    """The exit code of a command line; 1 where it crashed."""
    from vaco import cli

    try:
        return cli.run(arguments)
    except Exception as error:  # the other cases are still worth training
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def main() -> int:
    """The command; see the module's docstring."""
    jobs, place = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    import vaco

    if not Path(vaco.__file__).resolve().is_relative_to(Path(jobs["source"]).resolve()):
        print(f"golden: {vaco.__file__} was imported, but the source should be {jobs['source']}", file=sys.stderr)
        return 2
    outcomes, alarm = {}, Alarm()
    for job in jobs["jobs"]:
        outcomes[job["name"]] = run(job, place, alarm)
        print(job["name"], flush=True)
    (place / "outcomes.json").write_text(json.dumps(outcomes), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
