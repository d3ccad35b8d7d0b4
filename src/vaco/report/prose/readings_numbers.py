"""Numbers of the specification curve that stand in prose, from its tables.

The readings that share their common settings share their opponents' runs, too: they are a block, and their differences
are not independent. So an interval here is Student's t over blocks, of whose means or contrasts it is the interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from vaco.report.figures.specification import CENTRES, OWN, STUDY, choices, differences
from vaco.report.prose.tier_numbers import Found, with_interval
from vaco.report.tables.read import Tables

_ALGORITHMS = {centre: algorithm for algorithm, centre in CENTRES.items()}
FEWEST_BLOCKS = 3
"""With fewer no interval is given: Student's t with one degree of freedom says nothing."""


def from_readings(tables: Tables) -> Found:
    """VACO minus each opponent over all readings, by what concerns every method, and VACO by what is its own.

    Keys are `OPPONENT.count`, the readings compared; `.ahead`, those that score higher; `.beyond` and `.behind`, those
    higher and lower by more than their interval; `.seeds`, of the pair with fewest; `.lowest` and `.highest`, the ends
    of the distribution; `.mean`, its mean; `.CHOICE.LEVEL`, the mean over blocks with that level of a choice that
    concerns every method. `own.CHOICE.LEVEL` is the score of the readings with that level of a choice of VACO's own
    minus that of the others of their block, in which the opponents cancel; the filter's levels go by the algorithm's
    name. `ahead_of_all` counts the readings that score higher than every opponent, `finished` and `planned` runs.
    """
    table = differences(tables.read("scores"), tables)
    levels = choices(tables.json("configs"), tables.methods, list(dict.fromkeys(table["reading"])))
    names = tables.grid(STUDY)["algorithms"]
    opponents = [
        one for one in dict.fromkeys(tables.methods[name]["algorithm"] for name in names) if one not in CENTRES
    ]
    for opponent in opponents:
        rows = table[table["algorithm"] == opponent]
        apart = rows["difference"]
        yield f"{opponent}.count", len(rows), "d"
        yield f"{opponent}.ahead", int((apart > 0).sum()), "d"
        yield f"{opponent}.beyond", int((rows["low"] > 0).sum()), "d"
        yield f"{opponent}.behind", int((rows["high"] < 0).sum()), "d"
        yield f"{opponent}.seeds", int(rows["runs"].min()) if len(rows) else 0, "d"
        yield f"{opponent}.lowest", float(apart.min()), "+.2f"
        yield f"{opponent}.highest", float(apart.max()), "+.2f"
        blocks = apart.groupby(rows["opponent"]).mean()
        yield f"{opponent}.mean", over_blocks(blocks), ""
        for choice, of in levels.items():
            if choice not in (*OWN, "filter"):
                level_of = {str(row["opponent"]): of[str(row["reading"])] for row in rows.to_dict("records")}
                for level in sorted(set(of.values())):
                    yield (
                        f"{opponent}.{choice}.{level}",
                        over_blocks(blocks[[level_of[b] == level for b in blocks.index]]),
                        "",
                    )
    first = table[table["algorithm"] == opponents[0]]
    for choice, of in levels.items():
        if choice in (*OWN, "filter"):
            for level in sorted(set(of.values())):
                yield f"own.{choice}.{_ALGORITHMS.get(level, level)}", over_blocks(contrasts(first, of, level)), ""
    beaten = table.assign(ahead=table["difference"] > 0).groupby("reading")["ahead"].agg(["all", "size"])
    yield "ahead_of_all", int((beaten["all"] & (beaten["size"] == len(opponents))).sum()), "d"
    progress = tables.summary["progress"][STUDY]
    yield "finished", progress["finished"], "d"
    yield "planned", progress["planned"], "d"


def contrasts(rows: pd.DataFrame, level_of: Mapping[str, str], level: str) -> pd.Series:
    """The readings with a level minus the others, block by block, where a block has both.

    Args:
        rows: differences from one opponent's runs, which cancel: `reading`, `opponent`, `difference`.
        level_of: the level of each reading.
        level: the one in question.
    """
    found = {}
    for block, own in rows.groupby("opponent"):
        held = np.array([level_of[name] == level for name in own["reading"]])
        if held.any() and not held.all():
            found[block] = own["difference"][held].mean() - own["difference"][~held].mean()
    return pd.Series(found, dtype=float)


def over_blocks(values: pd.Series | Sequence[float]) -> str | None:
    """Mean and 95 % interval (Student's t) of one number a block; None of none, no interval of fewer than three."""
    known = np.asarray(values, dtype=float)
    if not len(known):
        return None
    mean, half = float(known.mean()), math.nan
    if len(known) >= FEWEST_BLOCKS:
        half = float(stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known)))
    return with_interval(mean, mean - half, mean + half, "+.2f")
