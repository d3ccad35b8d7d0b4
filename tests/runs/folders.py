"""Run folders for tests: begun, finished, and held by another process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vaco.runs import checkpoint
from vaco.runs.folder import RunFolder

FINAL = ["evals.parquet", "manifest.json", "phases.parquet", "policy.safetensors"]
CONFIG = {"env": "HalfCheetah-v5", "delta": 0.2, "seed": 0, "hidden": (64, 64)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def save(folder: RunFolder, progress: int = 1) -> None:
    checkpoint.save(folder.checkpoints, progress=progress, arrays={"x": np.ones(3)}, meta={})


def finish(folder: RunFolder, config_hash: str = "h") -> None:
    folder.finish(
        phases={"phase": np.arange(3)},
        evals={"mean": np.zeros(2)},
        policy={"w": np.ones(4)},
        policy_meta={"env": "E", "lag": 1},
        manifest={"schema": 1, "config_hash": config_hash, "config": CONFIG},
    )


def complete(path: Path) -> None:
    with RunFolder(path, "h", config=CONFIG) as folder:
        finish(folder)


HOLDER = """
import sys
from pathlib import Path
from vaco.runs.folder import RunFolder
with RunFolder(Path(sys.argv[1]), "h"):
    print("ready", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
