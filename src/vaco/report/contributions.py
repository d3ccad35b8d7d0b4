"""The two ideas with and without each other where data are oldest: a map a task and one over all tasks.

Reviewer question 1, at the largest degree of asynchrony and with the comparison's seeds. The study is the grid
`contributions` of a tier.
"""

from __future__ import annotations

from collections.abc import Sequence

from vaco.report.command import run_command
from vaco.report.factorial import caption_of, maps
from vaco.report.product import Drawn, figure_command
from vaco.report.tables import Tables

STUDY = "contributions"


def draw(tables: Tables) -> Drawn:
    """Draw the maps."""
    figure, scores, whole = maps(tables, STUDY, columns=4, height=1.5)
    first = (
        f"Performance retained at K = {tables.grid(STUDY)['capacities'][0]}, where data are oldest, by the paper's two "
        "ideas with and without each other: the normalised score, so 1 is what synchronous PPO reaches and 0 the "
        "random policy. none + clip is PPO, once + clip aligns only, none + tv filters only, once + tv is VACO."
    )
    return Drawn(figure, caption_of(tables, STUDY, first, scores, whole))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of this figure."""
    return figure_command(draw, arguments, __doc__)


if __name__ == "__main__":
    run_command(main)
