"""Numbers of the comparison at two lengths that stand in prose, from its tables."""

from __future__ import annotations

from itertools import product

from vaco.report.figures.longer import STUDY, ends, exchanged, returns
from vaco.report.prose.tier_numbers import Found
from vaco.report.tables.read import MAIN, Tables


def from_lengths(tables: Tables, shorter: Tables | None) -> Found:
    """Final returns after the longer and the shorter tier's steps.

    Keys are `long|short.ENV.ALGORITHM.lagK`, the mean over seeds, and `.n` after it, the seeds; `pairs`, the pairs of
    methods with runs at both lengths, by task and K, and `exchanged`, those whose order is another.
    """
    table = ends(returns(tables, shorter))
    lengths = [("long", int(tables.summary["steps"]))]
    if shorter is not None:
        lengths.append(("short", int(shorter.summary["steps"])))
    of = {(row["env"], row["algorithm"], row["lag"], row["steps"]): row for row in table.to_dict("records")}
    for grid in (tables.grid(MAIN), tables.grid(STUDY)):
        for env, name, lag in product(grid["environments"], grid["algorithms"], grid["capacities"]):
            algorithm = tables.methods[name]["algorithm"]
            for word, steps in lengths:
                row = of.get((env, algorithm, lag, steps))
                yield f"{word}.{env}.{algorithm}.lag{lag}", row and float(row["mean"]), ",.0f"
                yield f"{word}.{env}.{algorithm}.lag{lag}.n", int(row["runs"]) if row else 0, "d"
    changed, counted = exchanged(table)
    yield "pairs", counted, "d"
    yield "exchanged", changed, "d"
