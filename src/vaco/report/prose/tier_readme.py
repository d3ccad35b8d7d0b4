"""The README of a tier's results: what they say, what was run, on what, with which code, at what cost, what is missing.

`python -m vaco.report.prose.tier_readme --tables build/results/desk/tables --out build/results/desk/README.md`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from vaco.command import Parser, run_command
from vaco.paths import path_flag
from vaco.report.prose.tier_numbers import SUBJECT, from_aggregates, from_separation
from vaco.report.tables import caption
from vaco.report.tables.read import MAIN, Tables
from vaco.report.tables.typeset import as_markdown

SHOWN = 12
FILES = """\
* `archive/`: every finished run, in a few tables that `pandas.read_parquet` reads; its README explains every column.
  Manifests with all settings, versions, revision and checksums are in `archive/runs.parquet`, returns of the random
  policy, the zero of normalised scores, in `archive/references.json`. Weights are not kept in git, but for
  those of `policies/`, where there is such a folder.

Tables and figures are drawn from it into `build/`; `vaco restore --tier {tier}` lays run folders out again."""


def render(summary: Mapping[str, Any], runs: pd.DataFrame, found: Mapping[str, Any]) -> str:
    """The whole text.

    Args:
        summary: `summary.json`.
        runs: `runs.parquet`.
        found: what the comparison says, by the keys of `vaco.report.prose.tier_numbers`.
    """
    tier, planned, finished = summary["tier"], summary["planned_runs"], summary["runs"]
    state = "complete" if finished == planned else f"incomplete: {finished} of {planned} runs are finished"
    so_far = "" if finished == planned else " so far"
    parts = [
        f"# Results of the tier `{tier}`",
        "Made by `make release` from the archive; do not edit.",
        summary["description"],
        f"**State: {state}.** {summary['steps']:,} environment steps a run.",
        _advice(tier, finished == planned),
        *([f"## What the comparison says{so_far}", verdict(summary, found)] if f"keeps.{SUBJECT}" in found else []),
        "## How far each grid is",
        progress_table(summary),
        "## What it took",
        as_markdown(("what", "value"), origin(summary, runs)),
        "Wall-clock was measured while the machine did other work beside the runs; it says what the campaign took, not "
        "how fast the code is. `benchmarks/results/` has measurements made for that.",
        "## What is missing",
        missing(summary),
        *(["## Warnings", "\n".join(f"* {warning}" for warning in summary["warnings"])] if summary["warnings"] else []),
        "## What is in this folder",
        FILES.format(tier=tier),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _advice(tier: str, complete: bool) -> str:
    drawn = f"`snakemake --config tier={tier}` draws the figures from `archive/` and trains nothing"
    if complete:
        return f"{drawn}; with `runs=all` it trains every run anew."
    return (
        f"{drawn}, and says in every caption what is missing; with `runs=missing` it trains the missing runs first, in "
        "the order of seeds."
    )


def verdict(summary: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The paper's claim, the order of the methods at every K, and which differences are beyond chance."""
    wanted = ("order.lag{}", "order.lag{}.n", "ahead.lag{}", "behind.lag{}", "clear.lag{}")
    rows = [
        (str(lag), *(str(found.get(key.format(lag)) or "–") for key in wanted))
        for lag in summary["grids"][MAIN]["capacities"]
    ]
    header = ("K", "interquartile means, highest first", "seeds", "VACO is ahead of", "and behind", "beyond chance")
    claim = found.get("claim.iqm")
    said = f"on the interquartile means it {claim}" if claim else "no verdict yet, runs are missing"
    if found.get("claim.refuted"):
        said += (
            f". That is the order of estimates; beyond chance, by mean scores, another method is ahead of VACO "
            f"{found['claim.refuted']}, and VACO is ahead of all others {found['claim.confirmed']}"
        )
    return (
        f"The paper's main claim is that VACO scores highest when data are old: {said}. 0 is the random policy, 1 this "
        f"tier's synchronous PPO.\n\n{as_markdown(header, rows)}\nAhead and behind by mean scores; beyond chance where "
        f"Welch's 95 % interval of the difference does not hold 0, uncorrected for the number of comparisons. "
        f"{caption.joined(caption.scale(summary), caption.naming(summary))}"
    )


def progress_table(summary: Mapping[str, Any]) -> str:
    """One row a grid: runs finished of planned, by seed too."""
    seeds = list(dict.fromkeys(seed for grid in summary["progress"].values() for seed in grid["seeds"]))
    rows = []
    for name, grid in summary["progress"].items():
        of_seeds = [f"{grid['seeds'][s][0]}/{grid['seeds'][s][1]}" if s in grid["seeds"] else "–" for s in seeds]
        cells = f"{grid['cells'] - grid['empty']}/{grid['cells']}"
        rows.append((name, f"{grid['finished']}/{grid['planned']}", cells, *of_seeds))
    header = ("grid", "runs", "cells with a run", *(f"seed {seed}" for seed in seeds))
    note = "A run that several grids ask for is one run, and counts in each of them. A cell is a task, method and K."
    return as_markdown(header, rows) + "\n" + note


def origin(summary: Mapping[str, Any], runs: pd.DataFrame) -> list[tuple[str, str]]:
    """When, where, with what and for how long."""
    revisions = runs["revision"].value_counts().sort_index()
    dirty = int((runs["dirty"] == "True").sum())
    rows = [
        ("first run started", runs["started"].min()),
        ("last run finished", runs["finished"].max()),
        ("processor", ", ".join(summary["cpus"])),
        ("environment steps", f"{summary['environment_steps']:,}"),
        ("core-hours", f"{summary['core_hours']:.1f}"),
        ("median minutes a run", f"{runs['wall_seconds'].median() / 60:.1f}"),
        (
            "source revisions",
            ", ".join(f"{str(revision)[:12]} ({count} runs)" for revision, count in revisions.items()),
        ),
        ("runs with uncommitted changes", str(dirty)),
    ]
    return rows + [(package, ", ".join(versions)) for package, versions in summary["versions"].items()]


def missing(summary: Mapping[str, Any]) -> str:
    """Missing runs counted by method and K, and the first of them by name."""
    folders = [folder.split("/") for folder in summary["missing"]]
    if not folders:
        return "Nothing."
    table = pd.DataFrame(folders, columns=["env", "name", "lag", "seed"])
    counts = table.groupby(["name", "lag"], sort=False).size().rename("count").reset_index()
    capacities = sorted(counts["lag"].unique(), key=lambda lag: int(lag.removeprefix("lag")))
    wide = counts.pivot(index="name", columns="lag", values="count").reindex(columns=capacities).fillna(0).astype(int)
    order = [name for name in summary["methods"] if name in wide.index]
    rows = [(f"`{name}`", *(str(wide.loc[name, lag]) for lag in capacities)) for name in order]
    header = ("missing runs", *(f"K = {lag.removeprefix('lag')}" for lag in capacities))
    more = f" and {len(folders) - SHOWN} more, listed in the tables' `summary.json`" if len(folders) > SHOWN else ""
    listed = ", ".join("/".join(parts) for parts in folders[:SHOWN])
    return as_markdown(header, rows) + f"\n{len(folders)} runs: {listed}{more}."


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module's docstring."""
    parser = Parser(prog="python -m vaco.report.prose.tier_readme", description="README of a tier's results.")
    parser.add_argument("--tables", type=path_flag, required=True, help="folder build/results/<tier>/tables")
    parser.add_argument("--out", type=path_flag, required=True, help="the README")
    given = parser.parse_args(arguments)
    tables = Tables(given.tables)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    found = {key: value for numbers in (from_aggregates, from_separation) for key, value, _ in numbers(tables)}
    given.out.write_text(render(tables.summary, tables.read("runs"), found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_command(main)
