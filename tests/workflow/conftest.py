"""Copies of the repository for Snakemake to work in: of its source with a small tier, and of all that is tracked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Snakemake = Callable[..., "subprocess.CompletedProcess[str]"]

TINY = """
tier: tiny
description: A tier for tests.
environments: [InvertedPendulum-v5]
algorithms: [ppo, vaco]
capacities: [1, 4]
seeds: [0]
steps: 12288
evaluation: {points: 2, episodes: 1}
reference: {episodes: 20, seed: 0}
"""


def call(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run an installed command in a copy, on the copy's own source."""
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"} | more
    command = [str(Path(sys.executable).with_name(words[0])), *words[1:]]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def snakemake_in(folder: Path) -> Snakemake:
    """Run Snakemake in a copy; settings are given by name."""

    def run(*arguments: str, **config: object) -> subprocess.CompletedProcess[str]:
        settings = [f"{key}={value}" for key, value in config.items()]
        return call(folder, "snakemake", "--cores", "1", *arguments, *(["--config", *settings] if settings else []))

    return run


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """All that a run of the workflow reads, the package's source among it, a tier of 4 short runs, and no archive."""
    copy = tmp_path / "repository"
    copy.mkdir()
    for part in ("workflow", "profiles", "config", "src", "theory"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (copy / "config" / "tiny.yaml").write_text(TINY)
    return copy


@pytest.fixture
def snakemake(repository: Path) -> Snakemake:
    """Run Snakemake in the copy without archives."""
    return snakemake_in(repository)


def tracked() -> list[str]:
    """The files that git tracks and the working tree has."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one commit: what is tracked, as the working tree has it now."""
    place = tmp_path_factory.mktemp("origin") / "repository"
    for name in tracked():
        copied = place / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copied)
        shutil.copymode(ROOT / name, copied)
    git(place, "init", "--quiet", "--initial-branch=main")
    git(place, "add", "--all", "--force")
    git(place, "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "--message=all")
    return place


def git(place: Path, *words: str) -> str:
    """Run git without the configuration of whoever runs the tests; what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = subprocess.run(["git", *words], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Path:
    """A fresh clone."""
    git(tmp_path, "clone", "--quiet", str(origin), "clone")
    return tmp_path / "clone"
