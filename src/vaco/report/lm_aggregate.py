"""From the runs of a language-model tier to its tables: `evals`, `updates` and `summary`.

    python -m vaco.lm.tiers lm_desk | python -m vaco.report.lm_aggregate --plan - --results results/lm_desk --out DIR

Before a number is taken from a run, its files are compared with the checksums in its manifest, its configuration with
the plan, and all runs with each other: one training code, one version of PyTorch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vaco.errors import UserError
from vaco.report.command import run_command

IDENTITY = ("minibatches", "lag", "seed")
FILES = ("phases.parquet", "evals.parquet")


def read_run(folder: Path, planned: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of a finished run after its checks, or None if it is not finished.

    Raises:
        UserError: the run is damaged or of another configuration than the plan's.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        sums = manifest["checksums"]
        hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise UserError(f"the run in {folder} is damaged ({problem}): delete the folder and train it again") from None
    changed = [name for name in FILES if sums.get(name) != hashes[name]]
    if changed:
        raise UserError(f"{folder / changed[0]} does not match its manifest: delete the folder and train it again")
    if manifest["config_hash"] != planned["config_hash"]:
        raise UserError(
            f"the run in {folder} has another configuration than the tier asks for: delete the folder, or put the tier "
            "file back"
        )
    return manifest


def aggregate(plan: Mapping[str, Any], results: Path, allow_missing: bool) -> dict[str, Any]:
    """The tables by name: two data frames and the summary.

    Args:
        plan: from `python -m vaco.lm.tiers`.
        results: folder `results/<tier>`.
        allow_missing: leave out runs that are not finished, and say so in the summary.

    Raises:
        UserError: a run is missing, damaged, of another configuration, or of other code than the rest.
    """
    evals, updates, manifests, missing = [], [], [], []
    for planned in plan["runs"]:
        folder = results.parent / planned["folder"]
        manifest = read_run(folder, planned)
        if manifest is None:
            missing.append(planned["folder"])
            continue
        manifests.append(manifest)
        own = {key: manifest["identity"][key] for key in IDENTITY}
        own |= {"algorithm": planned["name"], "grids": ",".join(planned["grids"])}
        evals.append(pd.read_parquet(folder / "evals.parquet").assign(**own))
        updates.append(pd.read_parquet(folder / "phases.parquet").assign(**own))
    if missing and not allow_missing:
        raise UserError(
            f"{len(missing)} runs are not finished, the first {missing[0]}: train them, or allow missing ones"
        )
    if not manifests:
        raise UserError(f"no run of the tier '{plan['tier']}' is finished: train some first")
    for what, values in (
        ("training code", {m["source_hash"] for m in manifests}),
        ("PyTorch", {m["versions"]["torch"] for m in manifests}),
        ("warm starts", {json.dumps(m["warm_start"], sort_keys=True) for m in manifests}),
    ):
        if len(values) > 1:
            raise UserError(f"the runs of '{plan['tier']}' mix {len(values)} versions of {what}: train them with one")
    return {
        "evals": pd.concat(evals, ignore_index=True),
        "updates": pd.concat(updates, ignore_index=True),
        "summary": _summary(plan, manifests, missing),
    }


def write(plan: Mapping[str, Any], results: Path, out: Path, *, allow_missing: bool) -> None:
    """Write the tables of `aggregate` into a folder.

    Raises:
        UserError: as `aggregate`, before anything is written.
    """
    tables = aggregate(plan, results, allow_missing)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("evals", "updates"):
        tables[name].to_parquet(out / f"{name}.parquet", index=False)
    text = json.dumps(tables["summary"], indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (out / "summary.json").write_text(text, encoding="utf-8")


def _summary(plan: Mapping[str, Any], manifests: Sequence[Mapping[str, Any]], missing: list[str]) -> dict[str, Any]:
    hashes = "".join(sorted(m["config_hash"] for m in manifests))
    first = manifests[0]
    return {
        "tier": plan["tier"],
        "description": plan["description"],
        "grids": plan["grids"],
        "training": plan["training"],
        "meanings": plan["meanings"],
        "runs": len(manifests),
        "planned_runs": len(plan["runs"]),
        "missing": missing,
        "warnings": [],
        "config_hash": hashlib.sha256(hashes.encode()).hexdigest()[:16],
        "parameters": first["parameters"],
        "distinct_eval_problems": first["distinct_eval_problems"],
        "warm_start": first["warm_start"],
        "versions": first["versions"],
        "cpu": sorted({m["cpu"] for m in manifests}),
        "revisions": sorted({str(m["revision"]) for m in manifests}),
        "source_hash": first["source_hash"],
        "started": min(m["started"] for m in manifests),
        "finished": max(m["finished"] for m in manifests),
        "hours": round(sum(m["wall_seconds"] for m in manifests) / 3600, 3),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--plan", required=True, help="file with the plan, or - for standard input")
    parser.add_argument("--results", type=Path, required=True, help="folder results/<tier>")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--allow-missing", action="store_true", help="leave out runs that are not finished")
    given = parser.parse_args(arguments)
    plan = json.loads(sys.stdin.read() if given.plan == "-" else Path(given.plan).read_text(encoding="utf-8"))
    write(plan, given.results, given.out, allow_missing=given.allow_missing)
    return 0


if __name__ == "__main__":
    run_command(main)
