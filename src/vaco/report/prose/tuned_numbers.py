"""Numbers of the comparison at equal tuning effort that stand in prose, from its tables."""

from __future__ import annotations

from itertools import product

from vaco.report.figures.tuned import READINGS, STUDY, cells, differences, standings
from vaco.report.prose.tier_numbers import Found, with_interval
from vaco.report.tables.methods import centred_label
from vaco.report.tables.read import Tables


def from_comparison(tables: Tables) -> Found:
    """Scores with tuned and with nominal settings, VACO's readings minus every other method, and what is beyond chance.

    Keys are `ALGORITHM.lagK.tuned|nominal` and `.n` after either, the seeds of its task with fewest;
    `READING.over.ALGORITHM.lagK`, a difference with its 95 % interval; `READING.lagK.ahead|behind`, the methods that
    it is ahead of, and behind, beyond that interval, and `.ahead_corrected|behind_corrected`, beyond the one that is
    corrected for the number of comparisons; `comparisons`, that number.
    """
    made = cells(tables.read("scores"), tables)
    scores = {(row["algorithm"], row["lag"], row["tuned"]): row for row in standings(made).to_dict("records")}
    apart = differences(made)
    nominal = tables.grid(STUDY)
    algorithms = [tables.methods[name]["algorithm"] for name in nominal["algorithms"]]
    for algorithm, lag, tuned in product(algorithms, nominal["capacities"], (True, False)):
        row, key = scores.get((algorithm, lag, tuned)), f"{algorithm}.lag{lag}.{'tuned' if tuned else 'nominal'}"
        yield key, row and with_interval(row["point"], row["low"], row["high"], ".2f"), ""
        yield f"{key}.n", int(row["runs"]) if row else 0, "d"
    yield "comparisons", len(apart), "d"
    for reading, lag in product(READINGS, nominal["capacities"]):
        rows = apart[(apart["reading"] == reading) & (apart["lag"] == lag)].to_dict("records")
        by_name = {row["opponent"]: row for row in rows}
        for other in algorithms:
            if other not in READINGS:
                row = by_name.get(other)
                text = row and with_interval(row["difference"], row["low"], row["high"], "+.2f")
                yield f"{reading}.over.{other}.lag{lag}", text, ""
        for word, low, high in (("", "low", "high"), ("_corrected", "wide_low", "wide_high")):
            sides = {"ahead": [r for r in rows if r[low] > 0], "behind": [r for r in rows if r[high] < 0]}
            for side, chosen in sides.items():
                labels = ", ".join(centred_label(row["opponent"]) for row in chosen) or "none"
                yield f"{reading}.lag{lag}.{side}{word}", labels if rows else None, ""
