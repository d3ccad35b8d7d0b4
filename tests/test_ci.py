"""What CI does where no SLURM can be started: it says so, and fails only if it was told to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def ci(tmp_path: Path, stubs: dict[str, str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Call scripts/slurm-ci.sh with some commands replaced; the cluster's folder is one that does not exist."""
    for name, script in {"make": "echo made $*", **stubs}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VACO_")}
    return subprocess.run(
        [str(ROOT / "scripts/slurm-ci.sh")],
        env=clean
        | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VACO_SLURM_DIR": str(tmp_path / "none"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_without_root_the_slurm_tests_are_skipped_and_it_is_said(tmp_path: Path) -> None:
    done = ci(tmp_path, {"id": "echo 1000"})
    assert done.returncode == 0 and "made" not in done.stdout
    assert done.stdout.startswith("SKIPPED: the tests on SLURM.") and "needs root" in done.stdout


def test_skipping_them_can_be_made_an_error(tmp_path: Path) -> None:
    done = ci(tmp_path, {"id": "echo 1000"}, VACO_CI_REQUIRE_SLURM="1")
    assert done.returncode == 1 and "made" not in done.stdout
    assert done.stderr.startswith("FAILED: the tests on SLURM") and "needs root" in done.stderr


@pytest.mark.skipif(Path("/etc/slurm/slurm.conf").exists(), reason="a cluster is up")
def test_where_a_cluster_can_be_started_they_run(tmp_path: Path) -> None:
    """With root and daemons, or what pretends to be them."""
    daemons = dict.fromkeys(("slurmctld", "slurmd", "munged", "sbatch", "srun"), "exit 0")
    done = ci(tmp_path, {"id": "echo 0", **daemons})
    assert done.returncode == 0 and done.stdout == "made test-slurm\n", done.stderr


@pytest.mark.parametrize(
    ("slow", "slurm", "code"), [(0, 0, 0), (1, 0, 1), (0, 3, 3)], ids=["all pass", "a slow test fails", "SLURM fails"]
)
def test_ci_waits_for_them_and_shows_what_they_said(tmp_path: Path, slow: int, slurm: int, code: int) -> None:
    """They run beside the slow tests; neither hides the other's failure."""
    scripts = {
        ".ci/run": (ROOT / ".ci/run").read_text(),
        "scripts/slurm-ci.sh": f"#!/bin/sh\nsleep 1\necho said by SLURM\nexit {slurm}\n",
        ".venv/bin/python": f"#!/bin/sh\necho slow tests: $*\nexit {slow}\n",
        "bin/make": "#!/bin/sh\necho made $*\n",
    }
    for name, text in scripts.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    environment = {**os.environ, "VACO_CI_PACKAGE": "1", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = subprocess.run([str(tmp_path / ".ci/run")], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    lines = done.stdout.splitlines()
    made = ["lint", "test", "golden", "test-package", "smollm2"]
    assert lines[:5] == [f"made {target}" for target in made] and lines[-1] == "said by SLURM"
    assert "slow tests: -m pytest -m slow and not slurm -n 2" in lines
