"""From the archive of a language-model tier to its tables: `evals`, `updates` and `summary`.

    python -m vaco.lm.tiers lm_desk | python -m vaco.report.tables.lm_aggregate --plan - --archive DIR --out DIR

Runs that are compared must be of one version of PyTorch and from one warm start, those of one algorithm of one training
version.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vaco.archive import Archive, Entry
from vaco.command import Parser, run_command
from vaco.errors import UserError
from vaco.paths import path_flag, user_path

LARGE_CUT = 0.1
"""Share of cut responses of a run from which on captions warn."""
IDENTITY = ("minibatches", "lag", "seed")


def aggregate(plan: Mapping[str, Any], archive: Archive) -> dict[str, Any]:
    """The tables by name: two data frames and the summary.

    Args:
        plan: from `python -m vaco.lm.tiers`.
        archive: the tier's; what is missing there is named in the summary.

    Raises:
        UserError: there is no run, or runs may not be compared.
    """
    others = {run.rpartition("-v")[0]: run for run in archive.entries}
    evals, updates, entries, missing, old = [], [], [], [], set()
    for planned in plan["runs"]:
        wanted = planned["run"]
        found = wanted if wanted in archive.entries else others.get(wanted.rpartition("-v")[0])
        if found is None:
            missing.append(planned["cell"])
            continue
        old |= {planned["name"]} if found != wanted else set()
        entry = archive.entries[found]
        entries.append(entry)
        own = {key: entry.manifest["identity"][key] for key in IDENTITY}
        own |= {"algorithm": planned["name"], "grids": ",".join(planned["grids"])}
        evals.append(entry.table("evals").to_pandas().assign(**own))
        updates.append(entry.table("phases").to_pandas().assign(**own))
    if not entries:
        raise UserError(f"the archive {archive.folder} holds no run of the tier '{plan['tier']}': train some first")
    _check_mixture(plan["tier"], entries)
    warnings = [f"Runs of {', '.join(sorted(old))} are of an older training version than the code here."] if old else []
    manifests = [entry.manifest for entry in entries]
    shares = [manifest["cut_share"] for manifest in manifests if manifest.get("cut_share") is not None]
    if shares and max(shares) > LARGE_CUT:
        warnings.append(f"In one run {max(shares):.0%} of the responses were cut at the longest length.")
    return {
        "evals": pd.concat(evals, ignore_index=True),
        "updates": pd.concat(updates, ignore_index=True),
        "summary": _summary(plan, manifests, missing) | {"archive": archive.digest, "warnings": warnings},
    }


def _check_mixture(tier: str, entries: Sequence[Entry]) -> None:
    """Refuse runs that may not be compared.

    Raises:
        UserError: they mix what must be one.
    """
    groups: dict[str, set[str]] = {"PyTorch": set(), "warm starts": set()}
    for entry in entries:
        groups["PyTorch"].add(entry.manifest["versions"]["torch"])
        groups["warm starts"].add(json.dumps(entry.manifest["warm_start"], sort_keys=True))
        algorithm = f"the training of {entry.manifest['identity']['algorithm']}"
        groups.setdefault(algorithm, set()).add(entry.run.rpartition("-")[2])
    for what, values in groups.items():
        if len(values) > 1:
            raise UserError(f"the runs of '{tier}' mix {len(values)} versions of {what}: train them with one")


def write(plan: Mapping[str, Any], archive: Archive, out: Path) -> None:
    """Write the tables of `aggregate` into a folder.

    Raises:
        UserError: as `aggregate`, before anything is written.
    """
    tables = aggregate(plan, archive)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("evals", "updates"):
        tables[name].to_parquet(out / f"{name}.parquet", index=False)
    text = json.dumps(tables["summary"], indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (out / "summary.json").write_text(text, encoding="utf-8")


def _summary(plan: Mapping[str, Any], manifests: Sequence[Mapping[str, Any]], missing: list[str]) -> dict[str, Any]:
    hashes = "".join(sorted(m["config_hash"] for m in manifests))
    first = manifests[0]
    shares = [m["cut_share"] for m in manifests if m.get("cut_share") is not None]
    return {
        "tier": plan["tier"],
        "description": plan["description"],
        "grids": plan["grids"],
        "training": plan["training"],
        "meanings": plan["meanings"],
        "runs": len(manifests),
        "planned_runs": len(plan["runs"]),
        "missing": missing,
        "config_hash": hashlib.sha256(hashes.encode()).hexdigest()[:16],
        "parameters": first["parameters"],
        "distinct_eval_problems": first["distinct_eval_problems"],
        "warm_start": first["warm_start"],
        # Unknown of runs from before it was recorded.
        "cut_share": sum(shares) / len(shares) if shares and len(shares) == len(manifests) else None,
        "versions": first["versions"],
        "cpu": sorted({m["cpu"] for m in manifests}),
        "revisions": sorted({str(m["revision"]) for m in manifests}),
        "started": min(m["started"] for m in manifests),
        "finished": max(m["finished"] for m in manifests),
        "hours": round(sum(m["wall_seconds"] for m in manifests) / 3600, 3),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = Parser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--plan", required=True, help="file with the plan, or - for standard input")
    parser.add_argument("--archive", type=path_flag, required=True, help="folder results/<tier>/archive")
    parser.add_argument("--out", type=path_flag, required=True, help="folder of the tables")
    given = parser.parse_args(arguments)
    plan = json.loads(sys.stdin.read() if given.plan == "-" else user_path(given.plan).read_text(encoding="utf-8"))
    write(plan, Archive(given.archive, plan["tier"]), given.out)
    return 0


if __name__ == "__main__":
    run_command(main)
