"""After Snakemake was killed on one machine: unlocked, and what has finished meanwhile is kept."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "scripts" / "slurm-recover.py"


def recover(folder: Path, search: str) -> str:
    """What the script prints when it is run in a folder, with a search path."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        cwd=folder,
        env=os.environ | {"PATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_slurm_it_unlocks_and_keeps_finished_runs(tmp_path: Path) -> None:
    marks = tmp_path / ".snakemake" / "incomplete"
    lock = tmp_path / ".snakemake" / "locks" / "0.output.lock"
    for path in (tmp_path / "workflow" / "Snakefile", lock):
        path.parent.mkdir(parents=True)
        path.write_text("")
    marks.mkdir()
    for name in ("finished", "altered", "new", "begun"):
        folder = tmp_path / "results" / "t" / "runs" / name
        folder.mkdir(parents=True)
        tables = ("phases.parquet", "evals.parquet")
        for file in tables:
            (folder / file).write_text(file)
        checksums = {file: hashlib.sha256(file.encode()).hexdigest() for file in tables}
        if name != "begun":
            status = "new" if name == "new" else "complete"
            (folder / "manifest.json").write_text(json.dumps({"status": status, "checksums": checksums}))
        if name == "altered":
            (folder / "evals.parquet").write_text("half")
        for file in ("manifest.json", *tables):
            mark = base64.urlsafe_b64encode(f"results/t/runs/{name}/{file}".encode()).decode()
            (marks / mark).write_text("{}")
    # A search path without squeue.
    assert "cancelled 0 jobs, unlocked, kept 1 finished runs" in recover(tmp_path, str(tmp_path))
    left = {base64.urlsafe_b64decode(path.name).decode().split("/")[3] for path in marks.iterdir()}
    assert not lock.exists() and left == {"altered", "new", "begun"} and len(list(marks.iterdir())) == 9


def test_it_cancels_the_jobs_of_this_folder_and_this_name_only(tmp_path: Path) -> None:
    """Of a SLURM that only lists and forgets jobs."""
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow" / "Snakefile").write_text("")
    others = f"2|vaco_train|/elsewhere\n3|other_train|{tmp_path}\n"
    queue = tmp_path / "queue"
    queue.write_text(f"1|vaco_train|{tmp_path}\n{others}")
    for name, script in (("squeue", "cat queue"), ("scancel", 'for n; do sed -i "/^$n|/d" queue; done')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    assert "cancelled 1 jobs" in recover(tmp_path, f"{tmp_path}:/usr/bin:/bin")
    assert queue.read_text() == others
