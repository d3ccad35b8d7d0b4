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


def test_without_slurm_it_unlocks_and_keeps_finished_runs(tmp_path: Path) -> None:
    marks = tmp_path / ".snakemake" / "incomplete"
    lock = tmp_path / ".snakemake" / "locks" / "0.output.lock"
    for path in (tmp_path / "workflow" / "Snakefile", lock):
        path.parent.mkdir(parents=True)
        path.write_text("")
    marks.mkdir()
    for name in ("finished", "begun"):
        folder = tmp_path / "results" / "t" / "runs" / name
        folder.mkdir(parents=True)
        tables = ("phases.parquet", "evals.parquet")
        for file in tables:
            (folder / file).write_text(file)
        checksums = {file: hashlib.sha256(file.encode()).hexdigest() for file in tables}
        if name == "finished":
            (folder / "manifest.json").write_text(json.dumps({"status": "complete", "checksums": checksums}))
        for file in ("manifest.json", *tables):
            mark = base64.urlsafe_b64encode(f"results/t/runs/{name}/{file}".encode()).decode()
            (marks / mark).write_text("{}")
    # A search path without squeue.
    environment = os.environ | {"PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "cancelled 0 jobs, unlocked, kept 1 finished runs" in done.stdout, done.stderr
    left = {base64.urlsafe_b64decode(path.name).decode().split("/")[3] for path in marks.iterdir()}
    assert not lock.exists() and left == {"begun"} and len(list(marks.iterdir())) == 3
