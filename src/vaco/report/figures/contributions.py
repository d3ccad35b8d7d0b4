"""The two ideas with and without each other at the largest capacity: a map a task and one over all tasks.

Reviewer question 1, where data are oldest, with the comparison's seeds. The study is a tier's grid `contributions`.
"""

from __future__ import annotations

from collections.abc import Sequence

from vaco.command import run_command
from vaco.report.figures.factorial import caption_of, maps
from vaco.report.figures.product import Drawn, figure_command
from vaco.report.tables.methods import look
from vaco.report.tables.read import Tables

STUDY = "contributions"


def draw(tables: Tables) -> Drawn:
    """Draw the maps."""
    figure, scores, whole = maps(tables, STUDY, columns=2, height=1.45)
    lag, methods = tables.grid(STUDY)["capacities"][0], tables.methods
    pairs = [f"{methods[name]['pair']} is {look(name, methods).label}" for name in ("ppo", "vaco")]
    first = (
        f"Performance retained at K = {lag}, by alignment and filter with and without each other: the normalised "
        f"score, so 1 is what synchronous PPO reaches and 0 the random policy. {' and '.join(pairs)}, with the runs of "
        "the comparison. The clip bounds the step from β, the decoupled clip and tv that from π_T."
    )
    return Drawn(figure, caption_of(tables, STUDY, first, scores, whole))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
