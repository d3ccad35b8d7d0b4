"""Whoever gets the repository, by whatever means, draws the tracked figures from the archive, and changes nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, call, git, snakemake_in
from test_workflow import jobs, said

# Of every kind one, and of those only figures that no resampling enters, so that few resamples suffice.
DRAWN = ("constraint", "hyperparameters", "language_models", "filter_and_alignment")
FEW = {"bootstrap": "{repetitions: 100}"}
MADE = Counter({"tables_of_tier": 1, "tables_of_language_tier": 1, "figure": 3, "typeset": 1})
MADE += Counter(dict.fromkeys(DRAWN, 1))


def plain(origin: Path, place: Path) -> None:
    git(place.parent, "clone", "--quiet", str(origin), str(place))


def shallow(origin: Path, place: Path) -> None:
    git(place.parent, "clone", "--quiet", "--depth=1", f"file://{origin}", str(place))


def parallel(origin: Path, place: Path) -> None:
    git(
        place.parent,
        *("-c", "checkout.workers=4", "-c", "checkout.thresholdForParallelism=1"),
        *("clone", "--quiet", str(origin), str(place)),
    )


def windows(origin: Path, place: Path) -> None:
    git(
        place.parent,
        "-c",
        "core.autocrlf=true",
        "clone",
        "--quiet",
        "-c",
        "core.autocrlf=true",
        str(origin),
        str(place),
    )


def tarball(origin: Path, place: Path) -> None:
    git(origin, "archive", "--output", str(place.with_suffix(".tar")), "HEAD")
    with tarfile.open(place.with_suffix(".tar")) as packed:
        packed.extractall(place)


def one_time(origin: Path, place: Path) -> None:
    plain(origin, place)
    for path in place.rglob("*"):
        os.utime(path, (0, 0), follow_symlinks=False)


def reversed_times(origin: Path, place: Path) -> None:
    plain(origin, place)
    for second, path in enumerate(sorted(place.rglob("*"), reverse=True)):
        os.utime(path, (second, second), follow_symlinks=False)


WAYS = [plain, shallow, parallel, windows, tarball, one_time, reversed_times]


def unchanged(place: Path) -> bool:
    return not (place / ".git").exists() or git(place, "status", "--porcelain") == ""


def differing(place: Path) -> list[str]:
    """The products that differ from the tracked ones."""
    made = [path for path in (place / "build/paper").rglob("*") if path.is_file()]
    assert len(made) == 3 + 4 + 3 + 4  # figures as PDF, PNG and sidecar, one as SVG, too; a table in three forms
    return [str(path) for path in made if path.read_bytes() != (ROOT / path.relative_to(place / "build")).read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_however_it_was_got_it_draws_the_same_and_trains_nothing(
    way: Callable[[Path, Path], None], origin: Path, tmp_path: Path
) -> None:
    place = tmp_path / "a folder with blanks"
    way(origin, place)
    assert jobs(snakemake_in(place)(*DRAWN, **FEW)) == MADE
    assert differing(place) == [] and unchanged(place)
    assert jobs(snakemake_in(place)(*DRAWN, "-n", **FEW)) == Counter()


def test_reading_the_workflow_changes_nothing(clone: Path) -> None:
    def state() -> dict[str, int]:
        kept = {".git", ".snakemake", "__pycache__"}  # what git, Snakemake and Python remember for themselves
        files = (path for path in clone.rglob("*") if path.is_file() and not kept & set(path.parts))
        return {str(path): path.stat().st_mtime_ns for path in files}

    before = state()
    snakemake = snakemake_in(clone)
    planned = jobs(snakemake("-n"))
    assert planned["figure"] == 27 and not planned.keys() & {"train", "lm_train", "archive", "warm_start"}
    missing = jobs(snakemake("-n", runs="missing"))
    assert missing["archive"] == 2 and not missing.keys() & {"train", "lm_train"}
    assert jobs(snakemake("-n", "runs", runs="all"))["train"] == 615
    assert snakemake("--list").returncode == 0 and snakemake("--unlock").returncode == 0
    assert state() == before and unchanged(clone)


@pytest.mark.slow
def test_interrupted_under_way_it_leaves_what_is_tracked_and_goes_on(clone: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--cores",
        "2",
        "all_figures",
        "--config",
        "bootstrap={repetitions: 100}",
    ]
    environment = os.environ | {"PYTHONPATH": str(clone / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        cwd=clone,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until = time.monotonic() + 300
    while not list((clone / "build/paper/figures/desk").glob("*.png")) and time.monotonic() < until:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0 and unchanged(clone)
    assert snakemake_in(clone)("--unlock").returncode == 0
    again = jobs(snakemake_in(clone)(*DRAWN, **FEW))
    assert "tables_of_tier" not in again and set(again) <= set(MADE)
    assert unchanged(clone)


def grown(clone: Path) -> None:
    """Do to training code what once made every run stale: a new file, setting and module, and another name."""

    def edit(name: str, *changes: tuple[str, str]) -> None:
        path = clone / "src/vaco" / name
        text = path.read_text()
        for old, new in changes:
            assert old in text, f"{name} no longer has '{old}': change this test with it"
            text = text.replace(old, new)
        path.write_text(text)

    (clone / "src/vaco/control/unused.py").write_text(
        '"""A new file."""\n\n\ndef unused() -> None:\n    """Nothing."""\n'
    )
    edit(
        "runs/config.py",
        ("    eval_points: int =", '    novelty: float = setting(0.0, "a new setting", ge=0)\n    eval_points: int ='),
    )
    edit("control/evaluate.py", (" running", " going_on"))
    moved = (clone / "src/vaco/control/train.py").read_text()
    start = moved.index("def _environment_seed(")
    function = moved[start : moved.index("\n\n\n", start)]
    (clone / "src/vaco/control/seeds.py").write_text(f"import numpy as np\n\n\n{function}\n")
    edit(
        "control/train.py",
        (function, ""),
        (
            "from vaco.errors import UserError\n",
            "from vaco.control.seeds import _environment_seed\nfrom vaco.errors import UserError\n",
        ),
    )


@pytest.mark.slow
def test_code_that_grows_keeps_its_evidence(clone: Path) -> None:
    grown(clone)
    done = call(clone, "vaco", "stale", "--tier", "desk")
    assert done.returncode == 0 and done.stdout == "" and "0 of the 615 runs" in done.stderr
    snakemake = snakemake_in(clone)
    assert not jobs(snakemake("-n", "runs", runs="missing")).keys() & {"train", "lm_train"}
    assert jobs(snakemake(*DRAWN, **FEW)) == MADE
    # The summary of the tables, whose digest a sidecar names, now knows the new setting's meaning.
    assert [path for path in differing(clone) if not path.endswith(".json")] == []
    trained = call(
        clone, "vaco", "train", "--env", "InvertedPendulum-v5", "--steps", "2048", "--out", "run",
        *("--eval-points", "1", "--eval-episodes", "1", "--quiet"),
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr


def test_a_larger_list_of_seeds_trains_what_exists_nowhere(clone: Path) -> None:
    text = (clone / "config/desk.yaml").read_text().replace("tier: desk", "tier: more")
    old = "\nseeds: [0, 1, 2, 3, 4]\n"
    assert text.count(old) == 1
    (clone / "config/more.yaml").write_text(text.replace(old, "\nseeds: [0, 1, 2, 3, 4, 5, 6]\n"))
    planned = jobs(snakemake_in(clone)("-n", tier="more", lm_tier="none", runs="missing"))
    assert planned["train"] == 3 * 6 * 4 * 2 and planned["archive"] == 1


@pytest.mark.slow
def test_a_damaged_archive_is_refused_with_one_sentence(clone: Path) -> None:
    path = clone / "results/desk/archive/evals.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = snakemake_in(clone)("constraint", **FEW)
    assert done.returncode != 0 and not (clone / "build/results/desk/tables").exists()
    assert "evals.parquet does not match its checksum" in said(done)
    shutil.copytree(clone / "results/lm_desk/archive", clone / "results/desk/archive", dirs_exist_ok=True)
    verified = call(clone, "vaco", "verify", "results/desk")
    assert verified.returncode == 2 and "is that of the tier 'lm_desk', not of 'desk'" in verified.stderr
