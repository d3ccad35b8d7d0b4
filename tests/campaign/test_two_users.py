"""Two people of a group train one tier in one folder: each run once, the same bits; who may not write is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaco.campaign.tiers import load_tier
from vaco.runs.attempts import history, log
from vaco.runs.tables import read_parquet

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GROUP, ADA, BELL = 64001, 64001, 64002
TIER = """
tier: shared
description: A tier for tests.
environments: [InvertedPendulum-v5]
algorithms: [ppo, vaco]
capacities: [1]
seeds: [0, 1]
steps: 40960
evaluation: {points: 2, episodes: 1}
reference: {episodes: 2, seed: 0}
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
PLAN = [sys.executable, "-m", "vaco", "plan", "--tier", "shared", "--run", "--jobs", "1"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of the group, below one that others may enter, as pytest's own is not."""
    if os.geteuid() != 0:
        pytest.skip("only root can be two users")
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv here")
    with tempfile.TemporaryDirectory(prefix="vaco-shared-") as name:
        base = Path(name)
        base.chmod(0o755)
        shared = base / "shared"
        (shared / "config").mkdir(parents=True)
        (shared / "config" / "shared.yaml").write_text(TIER)
        os.chown(shared, ADA, GROUP)
        shared.chmod(0o2775)
        yield shared


def start(place: Path, user: int, *more: str, umask: int = 0o002) -> subprocess.Popen[str]:
    """Train the tier as somebody.

    They may read everything, since the interpreter may lie in root's home, but write only what is theirs.
    """
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    somebody = ["setpriv", f"--reuid={user}", f"--regid={GROUP}", "--clear-groups", *reading]
    own = {"HOME": str(place.parent), "VACO_ATTEMPTS": f"user-{user}"}
    words, options = [*somebody, *PLAN, *more], {"umask": umask, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, cwd=place, env=ENVIRONMENT | own, text=True, **options)  # type: ignore[call-overload]


def test_each_run_is_trained_once_with_the_bits_of_one_user(place: Path, tmp_path: Path) -> None:
    both = [start(place, user) for user in (ADA, BELL)]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    planned = load_tier(place / "config" / "shared.yaml").planned()
    folders = [place / "results" / "runs" / run.config.place for run in planned]
    assert len(folders) == 4 and all((folder / "manifest.json").is_file() for folder in folders)
    tries = [[one for one in history(folder) if one.outcome != "held"] for folder in folders]
    for folder, found in zip(folders, tries, strict=True):
        # Who waited for the other one's lock finds the run complete, and says so.
        idle = log(folder).read_text().count("already holds this run, complete: nothing to do")
        assert {one.outcome for one in found} == {"complete"} and len(found) - idle == 1, (found, idle)
    assert {found[0].call for found in tries} == {f"user-{ADA}", f"user-{BELL}"}, "one of them trained nothing"
    assert {folder.stat().st_uid for folder in folders} == {ADA, BELL}
    subprocess.run(PLAN, cwd=place, env=ENVIRONMENT, check=True)  # nothing is left
    alone = tmp_path / "alone"
    (alone / "config").mkdir(parents=True)
    (alone / "config" / "shared.yaml").write_text(TIER)
    subprocess.run(PLAN, cwd=alone, env=ENVIRONMENT, check=True)
    for run, folder in zip(planned, folders, strict=True):
        mine = alone / "results" / "runs" / run.config.place
        assert (mine / "policy.safetensors").read_bytes() == (folder / "policy.safetensors").read_bytes()
        left, right = (read_parquet(one / "evals.parquet") for one in (mine, folder))
        assert all(left[name].tobytes() == right[name].tobytes() for name in left if "seconds" not in name)


def test_whoever_may_not_write_there_is_told_in_a_sentence(place: Path) -> None:
    """Ada's umask keeps others of the group out of what she begins."""
    begun = start(place, ADA, "--shard", "1/4", umask=0o022)
    assert begun.wait(300) == 0
    other = start(place, BELL, "--shard", "2/4")
    said = other.communicate(timeout=300)[1]
    assert other.returncode == 2 and "Traceback" not in said, said
    assert "runs failed" in said and "Permission denied): give --out a place that is writable" in said, said
