"""A copy of the repository for Snakemake to work in, with finished runs that no training made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "report"))  # the generator of synthetic run folders

Snakemake = Callable[..., "subprocess.CompletedProcess[str]"]

TINY = """
tier: tiny
description: A tier for tests.
environments: [Hopper-v5, HalfCheetah-v5]
algorithms: [ppo, spo, vaco]
capacities: [1, 8]
seeds: [0, 1]
steps: 20480
evaluation: {points: 4, episodes: 2}
reference: {episodes: 100, seed: 0}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of all that a run of the workflow reads, the package's source among it, and a tier of 24 runs."""
    copy = tmp_path / "repository"
    copy.mkdir()
    for part in ("workflow", "profiles", "config", "src"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "Snakefile", copy)
    (copy / "config" / "tiny.yaml").write_text(TINY)
    return copy


@pytest.fixture
def snakemake(repository: Path) -> Snakemake:
    """Run Snakemake in the copy, on the copy's source."""

    def run(*arguments: str, tier: str = "tiny", **config: object) -> subprocess.CompletedProcess[str]:
        settings = [f"{key}={value}" for key, value in {"tier": tier, **config}.items()]
        return subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "1", *arguments, "--config", *settings],
            cwd=repository,
            env=os.environ | {"PYTHONPATH": str(repository / "src"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def finished(repository: Path) -> Path:
    """All runs of the tier and its references, as a fresh clone has them: files without Snakemake's memory of them."""
    from synthetic import write_tier

    from vaco.runs.tiers import load_tier

    tier = load_tier(repository / "config" / "tiny.yaml")
    write_tier(tier, repository / "results" / "tiny", phases=10)
    return repository
