"""Numbers of the specification curve that stand in prose, from its tables."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats

from vaco.report.figures.specification import CENTRES, STUDY, choices, differences
from vaco.report.prose.tier_numbers import Found, with_interval
from vaco.report.tables.read import Tables

_ALGORITHMS = {centre: algorithm for algorithm, centre in CENTRES.items()}


def from_readings(tables: Tables) -> Found:
    """VACO minus each opponent, over all readings and over those with one level of one choice.

    Keys are `OPPONENT.count`, the readings compared; `.ahead`, those that score higher; `.beyond` and `.behind`, those
    higher and lower by more than their interval; `.seeds`, of the pair with fewest; `.lowest` and `.highest`, the ends
    of the distribution; `.mean`, its mean; and `.CHOICE.LEVEL`, the mean over the readings with that level, levels as
    the figure has them, the filter's as the algorithm's name. An interval is Student's t over readings: of a mean over
    these designs, not over seeds.
    """
    table = differences(tables.read("scores"), tables)
    levels = choices(tables.json("configs"), tables.methods, list(dict.fromkeys(table["reading"])))
    names = tables.grid(STUDY)["algorithms"]
    algorithms = dict.fromkeys(tables.methods[name]["algorithm"] for name in names)
    for opponent in algorithms:
        if opponent in CENTRES:
            continue
        rows = table[table["algorithm"] == opponent]
        apart = rows["difference"]
        yield f"{opponent}.count", len(rows), "d"
        yield f"{opponent}.ahead", int((apart > 0).sum()), "d"
        yield f"{opponent}.beyond", int((rows["low"] > 0).sum()), "d"
        yield f"{opponent}.behind", int((rows["high"] < 0).sum()), "d"
        yield f"{opponent}.seeds", int(rows["runs"].min()) if len(rows) else 0, "d"
        yield f"{opponent}.lowest", float(apart.min()), "+.2f"
        yield f"{opponent}.highest", float(apart.max()), "+.2f"
        yield f"{opponent}.mean", over_readings(apart), ""
        for choice, of in levels.items():
            for level in sorted(set(of.values())):
                chosen = apart[[of[name] == level for name in rows["reading"]]]
                yield f"{opponent}.{choice}.{_ALGORITHMS.get(level, level)}", over_readings(chosen), ""


def over_readings(apart: pd.Series) -> str | None:
    """Mean and 95 % interval (Student's t) of the differences of several readings; None of none."""
    if apart.empty:
        return None
    mean, half = float(apart.mean()), math.nan
    if len(apart) > 1:
        half = float(stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart)))
    return with_interval(mean, mean - half, mean + half, "+.2f")
