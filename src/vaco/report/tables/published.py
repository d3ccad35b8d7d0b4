"""Our synchronous PPO beside published results of PPO at the same number of steps, as a table.

The published numbers are in `config/published.yaml`, each with its source. They were measured on other versions of the
tasks, with other settings and in other ways: the table is a check that ours is a PPO of the usual strength, no ranking.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vaco.command import run_command
from vaco.errors import UserError
from vaco.paths import path_flag
from vaco.report.tables import caption
from vaco.report.tables.read import MAIN, Tables
from vaco.report.tables.score_table import MISSING
from vaco.report.tables.sidecar import product_parser, write_sidecar
from vaco.report.tables.typeset import write_all
from vaco.yaml_file import read_yaml

HEADER = ("source", "task version", "seeds", "policy measured", "settings")
OURS = "here"


def read_published(path: Path) -> dict[str, Any]:
    """Read `config/published.yaml`.

    Raises:
        UserError: no such file, or it does not hold what the table needs.
    """
    content = read_yaml(path)
    needed = {"name", "url", "version", "seeds", "policy", "settings", "results"}
    sources = content.get("sources") if isinstance(content, dict) else None
    if not sources or not {"algorithm", "steps"} <= content.keys():
        raise UserError(f"{path} should say 'algorithm', 'steps' and 'sources': get it from the repository")
    for source in sources:
        if lacking := needed - source.keys():
            raise UserError(f"{path}: the source {source.get('name')!r} lacks {', '.join(sorted(lacking))}: add them")
    return dict(content)


def base(env: str) -> str:
    """The task without its version: HalfCheetah of HalfCheetah-v5."""
    return env.rsplit("-v", 1)[0]


def our_row(table: pd.DataFrame, tables: Tables, algorithm: str, tasks: Sequence[str]) -> list[str]:
    """Our synchronous PPO: mean over seeds with its interval, and the number of seeds of every task."""
    chosen = (table["grid"] == MAIN) & (table["metric"] == "final") & (table["lag"] == 1) & (table["name"] == algorithm)
    found = {row["env"]: row for _, row in table[chosen].iterrows()}
    cells, seeds = [], []
    for env in tasks:
        row = found.get(env)
        seeds.append(0 if row is None else int(row["runs"]))
        cells.append(MISSING if row is None else _ours(row))
    versions = sorted({env.rsplit("-", 1)[-1] for env in tasks})
    counted = str(seeds[0]) if len(set(seeds)) == 1 else ", ".join(str(count) for count in seeds)
    evaluation = tables.summary["evaluation"]
    policy = f"stochastic, {evaluation['final']} x {evaluation['episodes']} separate episodes at the end of training"
    return [OURS, ", ".join(versions), counted, policy, "one set for all tasks", *cells]


def _ours(row: pd.Series) -> str:
    if math.isnan(row["low"]):
        return f"{row['point']:.0f}"
    return f"{row['point']:.0f} [{row['low']:.0f}, {row['high']:.0f}]"


def their_row(source: Mapping[str, Any], tasks: Sequence[str]) -> list[str]:
    """A published result; what a source does not give is a dash, what was read off a plot has a tilde."""
    cells = []
    for env in tasks:
        values = source["results"].get(base(env))
        mark = "≈ " if source.get("approximate") else ""
        cells.append("–" if values is None else mark + " ± ".join(f"{value:.0f}" for value in values))
    return [source["name"], source["version"], str(source["seeds"]), source["policy"], source["settings"], *cells]


def verdict(ours: pd.DataFrame, sources: Sequence[Mapping[str, Any]]) -> str:
    """One sentence: above how many of the published results ours lies, task by task.

    Args:
        ours: a row a task, `env` and `point`.
        sources: the published results.
    """
    parts = []
    for _, row in ours.iterrows():
        theirs = [source["results"][base(row["env"])][0] for source in sources if base(row["env"]) in source["results"]]
        above = sum(row["point"] > value for value in theirs)
        count = "none" if not above else "all" if above == len(theirs) else str(above)
        parts.append(f"{count} of {len(theirs)} on {row['env']}")
    return f"Of the published means ours lies above {', '.join(parts)}." if parts else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this table."""
    parser = product_parser(__doc__)
    parser.add_argument(
        "--published", type=path_flag, default=Path("config/published.yaml"), help="the published results"
    )
    given = parser.parse_args(arguments)
    tables = Tables(given.tables)
    published = read_published(given.published)
    tables.remember(given.published)
    table = tables.read("task_scores")
    known = {task for source in published["sources"] for task in source["results"]}
    tasks = [env for env in tables.grid()["environments"] if base(env) in known]
    rows = [our_row(table, tables, published["algorithm"], tasks)]
    rows += [their_row(source, tasks) for source in published["sources"]]
    write_all(given.out, [*HEADER, *tasks], rows)
    ours = table[(table["grid"] == MAIN) & (table["metric"] == "final") & (table["lag"] == 1)]
    ours = ours[(ours["name"] == published["algorithm"]) & ours["env"].isin(tasks)]
    addresses = "; ".join(f"{source['name']}: {source['url']}" for source in published["sources"])
    spreads = "; ".join(
        f"{source['name']}: {source['spread']}" for source in published["sources"] if "spread" in source
    )
    text = caption.joined(
        f"Synchronous PPO of this tier after {tables.summary['steps']:,} steps beside published results of PPO after "
        f"{published['steps']:,}: mean return. The published runs used other versions of the tasks, other settings and "
        "other ways of measuring, so sizes can be compared and digits cannot; ≈ marks values read off a plot.",
        f"What follows ±: {spreads}; what stands in our brackets is an interval of the mean.",
        verdict(ours, published["sources"]),
        caption.over_seeds(ours, drawn="brackets"),
        caption.scale(tables.summary),
        f"Sources: {addresses}.",
        caption.caveats(tables.summary),
    )
    write_sidecar(tables, given.out, text)
    return 0


if __name__ == "__main__":
    run_command(main)
