"""What scripts/slurm-ray.sh refuses, a sentence each, before it starts anything; what it does is in tests/slurm."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/slurm-ray.sh"
ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "2"}


def said(
    place: Path, *command: str, programs: tuple[str, ...] = ("ray", "train"), **allocation: str
) -> tuple[int, str]:
    """Exit code and log of the script in an allocation that SLURM knows nothing of."""
    tools = place / "bin"
    tools.mkdir()
    for name in programs:
        (tools / name).write_text("#!/bin/sh\nexit 99\n")
        (tools / name).chmod(0o755)
    environment = {"PATH": f"{tools}:{os.defpath.lstrip(':')}"} | ALLOCATION | allocation
    done = subprocess.run(["bash", str(SCRIPT), *command], cwd=place, env=environment, capture_output=True, text=True)
    assert not done.stdout + done.stderr
    (log,) = (place / "logs").iterdir()
    assert log.name == "ray-7.log"
    return done.returncode, log.read_text()


def test_without_an_allocation(tmp_path: Path) -> None:
    environment = {"PATH": os.defpath}
    done = subprocess.run(["bash", str(SCRIPT), "train"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert "this needs an allocation" in done.stderr and done.stderr.count("\n") == 1


def test_without_a_command(tmp_path: Path) -> None:
    code, text = said(tmp_path)
    assert code == 2 and "there is no command to run" in text and text.count("\n") == 1


def test_without_ray(tmp_path: Path) -> None:
    code, text = said(tmp_path, "train", programs=("train",))
    assert code == 127 and 'pip install "vaco[ray]"' in text and text.count("\n") == 1


def test_without_the_command(tmp_path: Path) -> None:
    code, text = said(tmp_path, "train", programs=("ray",))
    assert code == 127 and "train is not on the search path" in text and text.count("\n") == 1


@pytest.mark.parametrize("words", [("--actors", "4"), ("--actors=4", "--quiet")])
def test_more_actors_than_there_is_room_for(tmp_path: Path, words: tuple[str, ...]) -> None:
    code, text = said(tmp_path, "train", *words)
    assert code == 2 and "room for 3 actors, and 4 are to be there" in text and text.count("\n") == 1


def test_a_single_core(tmp_path: Path) -> None:
    code, text = said(tmp_path, "train", SLURM_NTASKS="1", SLURM_CPUS_PER_TASK="1")
    assert code == 2 and "room for 0 actors, and 1 are to be there" in text and text.count("\n") == 1
