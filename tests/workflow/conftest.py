"""A copy of the repository for Snakemake to work in, with finished runs that no training made."""

from __future__ import annotations

import contextlib
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
        settings = [f"{key}={value}" for key, value in {"tier": tier, "lm_tier": "none", **config}.items()]
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
    from synthetic import write_reference, write_run

    from vaco.runs.provenance import training_hash
    from vaco.runs.tiers import load_tier

    tier = load_tier(repository / "config" / "tiny.yaml")
    for spec in tier.runs():
        folder = repository / "results" / spec.folder
        write_run(spec, folder, phases=10, source_hash=training_hash(spec.algorithm))
    for env in tier.environments:
        write_reference(env, repository / "results" / "tiny" / "references" / f"{env}.json")
    return repository


@pytest.fixture
def clone_of_desk(repository: Path) -> Path:
    """Two runs of the desk tier, its tables and two figures, made as a maintainer would, without Snakemake's memory."""
    from synthetic import write_reference, write_run

    from vaco.report import aggregate, constraint, estimates, factorial
    from vaco.report.plan import read_plan
    from vaco.runs.provenance import training_hash
    from vaco.runs.tiers import load_tier

    tier = load_tier(repository / "config" / "desk.yaml")
    root = repository / "results" / "desk"
    for name in ("ppo", "vaco"):
        spec = tier.find("Hopper-v5", name, 16, 0)
        write_run(spec, root.parent / spec.folder, phases=10, source_hash=training_hash(spec.algorithm))
    for env in tier.environments:
        write_reference(env, root / "references" / f"{env}.json")
    with contextlib.chdir(repository):  # sidecars name their tables relative to the root
        tables = Path("results/desk/tables")
        aggregate.aggregate(read_plan(tier.plan()), Path("results/desk"), tables, allow_missing=True)
        assert estimates.main(["--tables", str(tables), "--repetitions", "100"]) == 0
        for module in (factorial, constraint):
            name = module.__name__.rsplit(".", 1)[-1]
            assert module.main(["--tables", str(tables), "--out", f"paper/figures/desk/{name}"]) == 0
    return repository
