"""Runs and small studies from Python: `train`, `sweep`, and what they give, as tables of pandas.

    from vaco import sweep
    study = sweep("runs", env="CartPole-v1", algorithm=["vaco", "ppo"], lag=[1, 16], seed=[0, 1, 2], steps=50_000)
    study.evals.groupby(["algorithm", "lag", "env_steps"])["mean"].mean()

For what is larger than an afternoon there are tiers, ``config/README.md``.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from vaco.errors import UserError
from vaco.extras import missing
from vaco.paths import user_path
from vaco.runs.config import RunConfig, build
from vaco.runs.reads import require_read
from vaco.runs.tables import read_parquet

if TYPE_CHECKING:
    import pandas as pd

NAMED = ("env", "algorithm", "lag", "seed")
"""Settings that are columns of every table."""


class Study(NamedTuple):
    """What runs left: two tables, a row an evaluation and a row a phase, each with the columns of what varied.

    Attributes:
        evals: ``env_steps``, ``mean`` (return of the stochastic policy), ``deterministic_mean``, ...; as in
            ``evals.parquet``, whose columns the README of an archive explains.
        phases: lags, losses and times, as in ``phases.parquet``. Both have `env`, `algorithm`, `lag`, `seed` as they
            were given, every other setting that varied, and `run`, the run's folder, which `vaco.load` takes. A column
            of the table that has the name of one of these is called ``..._of_phase``.
    """

    evals: pd.DataFrame
    phases: pd.DataFrame


def train(out: Path | str, *, quiet: bool = True, log: Sequence[str] = (), **settings: Any) -> Study:
    """Train one run in this process, or continue it where it was interrupted.

    Args:
        out: the run's folder; one that holds this run already is read.
        quiet: show no progress.
        log: loggers, of ``tensorboard``, ``wandb``, ``csv``; what they write is below the folder.
        settings: as ``vaco train --help`` lists them.

    Returns:
        Its tables.

    Raises:
        UserError: a setting is wrong, the folder holds another run, or training diverged.
    """
    from vaco.control.train import train as train_one

    folder, config = user_path(out), _built(settings)
    _pandas()
    train_one(config, folder, quiet=quiet, log=log)
    return _tables([(_labels(config, settings, ()), folder)])


def sweep(
    out: Path | str,
    *,
    jobs: int | None = None,
    imports: Sequence[str] = (),
    say: Callable[[str], None] = lambda sentence: None,
    **settings: Any,
) -> Study:
    """Train every combination of settings, each run in a process of its own; finished ones are read.

    Args:
        out: the folder of all runs; each has one below it, named by what it is.
        jobs: how many runs at a time; by default as many as there are cores.
        imports: modules with rules of your own, as ``--import`` has them.
        say: called with a sentence about every run that is complete.
        settings: as ``vaco train --help`` lists them. A list holds values to try; a setting that is itself several
            numbers is a tuple, ``hidden=(64, 64)``, or a list of tuples.

    Returns:
        The tables of all runs.

    Raises:
        UserError: a setting is wrong, and nothing was trained; or runs failed, and all others are trained.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"jobs is {jobs}, but at least one run must be trained at a time")
    if empty := [name for name, value in settings.items() if value == []]:
        raise UserError(f"{empty[0]} is an empty list, which leaves nothing to train: give it values")
    _pandas()
    for module in imports:
        from vaco.objectives.plugins import import_rules

        import_rules(module)
    values = [value if isinstance(value, list) else [value] for value in settings.values()]
    cells = [dict(zip(settings, cell, strict=True)) for cell in itertools.product(*values)]
    configs = [_built(cell) for cell in cells]
    folders = [user_path(out) / config.place for config in configs]
    commands = {
        folder: _command(cell, folder, imports) for cell, folder in zip(cells, folders, strict=True)
    }  # settings that mean the same are one run
    _train_all(commands, jobs or _cores(), say)
    varied = {name for name, value in settings.items() if isinstance(value, list)}
    labels = [_labels(config, cell, varied) for config, cell in zip(configs, cells, strict=True)]
    return _tables(list(zip(labels, folders, strict=True)))


def _built(settings: Mapping[str, Any]) -> RunConfig:
    """The configuration of a run, refused where it would ignore a setting."""
    config = build(settings)
    require_read(config)
    return config


def _labels(config: RunConfig, given: Mapping[str, Any], varied: Collection[str]) -> dict[str, Any]:
    """What a run's rows begin with: the settings that name it and those that varied, as they were given."""
    return {name: given.get(name, getattr(config, name)) for name in NAMED} | {
        n: given[n] for n in given if n in varied
    }


def _command(settings: Mapping[str, Any], folder: Path, imports: Sequence[str]) -> list[str]:
    words = [word for module in imports for word in ("--import", module)]
    # The schedule of a file, or of another kind than K, is what the flag reads, too.
    given = [f"--set={name}={json.dumps(value)}" for name, value in settings.items() if name != "lag"]
    lag = ["--lag", str(settings["lag"])] if "lag" in settings else []
    return [sys.executable, "-m", "vaco", *words, "train", *lag, *given, "--out", str(folder), "--quiet"]


def _cores() -> int:
    """Cores that this process may use, as far as the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _train_all(commands: Mapping[Path, Sequence[str]], slots: int, say: Callable[[str], None]) -> None:
    """Run every command, some at a time.

    Raises:
        UserError: some failed; the sentence is the first one's.
    """
    # A module that this process can import is found by the others, too.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    waiting, active = list(commands), dict[Path, tuple["subprocess.Popen[bytes]", IO[bytes]]]()
    failed: list[str] = []
    try:
        while waiting or active:
            while waiting and len(active) < slots:
                folder = waiting.pop(0)
                # Not a pipe: a process that says more than it holds would wait until somebody reads it.
                nowhere, file = subprocess.DEVNULL, tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is read
                child = subprocess.Popen(commands[folder], env=environment, stdin=nowhere, stdout=nowhere, stderr=file)
                active[folder] = child, file
            for folder, (process, said) in [(f, a) for f, a in active.items() if a[0].poll() is not None]:
                del active[folder]
                told = _last_line(said)
                if process.returncode:
                    failed.append(f"{folder}: {told or f'it ended with code {process.returncode}'}")
                else:
                    say(f"{folder}: complete")
            time.sleep(0.02)
    finally:
        for process, _ in active.values():
            process.terminate()  # each saves a checkpoint
        for process, said in active.values():
            process.wait()
            said.close()
    if failed:
        raise UserError(f"{len(failed)} of {len(commands)} runs failed, the first {failed[0]}")


def _last_line(said: IO[bytes]) -> str:
    """What a process said last, empty if nothing."""
    with said:
        said.seek(max(0, said.seek(0, os.SEEK_END) - 4000))
        *_, last = ["", *said.read().decode("utf-8", errors="replace").strip().splitlines()]
    return last.removeprefix("vaco: ")


def _tables(runs: Sequence[tuple[Mapping[str, Any], Path]]) -> Study:
    """The tables of runs, each behind the columns of its labels."""
    pandas = _pandas()

    def stacked(name: str) -> Any:
        frames = []
        for labels, folder in runs:
            first = {**labels, "run": str(folder)}
            table = read_parquet(folder / f"{name}.parquet")
            frame = pandas.DataFrame({f"{key}_of_phase" if key in first else key: v for key, v in table.items()})
            for place, (label, value) in enumerate(first.items()):
                frame.insert(place, label, [value] * len(frame))
            frames.append(frame)
        return pandas.concat(frames, ignore_index=True)

    return Study(stacked("evals"), stacked("phases"))


def _pandas() -> Any:
    """The library of tables, asked for before anything is trained.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise missing(error) or error from error
    return pandas
