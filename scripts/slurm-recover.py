#!/usr/bin/env python
"""After Snakemake itself was killed: cancel its SLURM jobs if there are any, unlock, and keep what has finished.

    python scripts/slurm-recover.py [--prefix vaco]

Run it in the root of the repository, with no Snakemake at work there. The jobs of a killed Snakemake run on, and runs
that finish meanwhile stay marked as incomplete, so that Snakemake would delete and train them again. This script

1. where there is SLURM, cancels the jobs whose name starts with the profile's `slurm-jobname-prefix` and whose working
   directory is this one, and waits until they are gone: each saves a checkpoint; elsewhere the processes run on, and
   `vaco train`, started again by Snakemake, waits for them;
2. removes Snakemake's lock;
3. takes the mark from the files of every run whose manifest says that it is complete and whose checksums agree.

Then the same snakemake command continues.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import time
from pathlib import Path

from vaco.command import Parser, run_command

PATIENCE = 180.0


def jobs(prefix: str) -> list[str]:
    """Numbers of this user's jobs, pending or running, of that name and from this folder."""
    done = subprocess.run(
        ["squeue", "--me", "--noheader", "--format=%A|%j|%Z"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
    )
    rows = [line.split("|", 2) for line in done.stdout.splitlines()]
    here = {str(Path.cwd()), str(Path.cwd().resolve())}
    return sorted({row[0] for row in rows if row[1].startswith(f"{prefix}_") and row[2] in here})


def cancel(prefix: str) -> int:
    """Cancel the jobs and wait until they have ended; how many there were."""
    numbers = jobs(prefix)
    if numbers:
        subprocess.run(["scancel", *numbers], check=True)
    until = time.monotonic() + PATIENCE
    while jobs(prefix):
        if time.monotonic() > until:
            raise SystemExit(
                f"slurm-recover: jobs are still there after {PATIENCE:.0f} s: see squeue --me, then try again"
            )
        time.sleep(1)
    return len(numbers)


def finished(folder: Path) -> bool:
    """Whether a run's manifest says that it is complete, and its tables are those it speaks of."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return manifest["status"] == "complete" and all(
            hashlib.sha256((folder / name).read_bytes()).hexdigest() == manifest["checksums"][name]
            for name in ("phases.parquet", "evals.parquet")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def keep() -> int:
    """Take Snakemake's mark of incompleteness from the files of finished runs; how many runs."""
    kept = set()
    for mark in Path(".snakemake/incomplete").rglob("*"):
        # The mark's name is that of the file, in base 64; a long one is split into folders, whose names start with @.
        coded = "".join(part.removeprefix("@") for part in mark.relative_to(".snakemake/incomplete").parts)
        if not mark.is_file() or coded == "migration_underway":
            continue
        try:
            file = Path(base64.b64decode(coded, altchars=b"-_", validate=False).decode())
        except (ValueError, UnicodeDecodeError):
            continue
        if "runs" in file.parts and finished(file.parent):
            mark.unlink()
            kept.add(file.parent)
    return len(kept)


def main() -> int:
    """The command; see the module's docstring."""
    parser = Parser(description="Cancel the jobs of a killed Snakemake and keep what has finished.")
    parser.add_argument("--prefix", default="vaco", help="slurm-jobname-prefix of the profile (default vaco)")
    prefix = parser.parse_args().prefix
    if not Path("workflow/Snakefile").is_file():
        raise SystemExit("slurm-recover: there is no workflow/Snakefile here: run it in the root of the repository")
    try:
        cancelled = cancel(prefix) if shutil.which("squeue") else 0
    except (OSError, subprocess.SubprocessError) as error:
        raise SystemExit(f"slurm-recover: the cluster does not answer ({error}): try again on a login node") from None
    for lock in Path(".snakemake/locks").glob("*.lock"):
        lock.unlink()
    print(
        f"cancelled {cancelled} jobs, unlocked, kept {keep()} finished runs: now run the same snakemake command again"
    )
    return 0


if __name__ == "__main__":
    run_command(main)
