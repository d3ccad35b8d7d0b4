"""The algorithms, one row each: an alignment and a filter.

Any pair ``ALIGN+FILTER`` is an algorithm; the names below are aliases for rows. A new alias is one line here, a new
filter is one function in `filters`, and nothing else changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from vaco.errors import UserError, nearest
from vaco.objectives.align import ALIGNMENTS, Alignment
from vaco.objectives.filters import FILTERS, Filter

ALIASES = {
    "ppo": ("none", "clip"),
    "ppo_kl": ("none", "kl"),
    "spo": ("none", "spo"),
    "impala": ("continuous", "truncated"),
    "geppo": ("once", "centred_clip"),
    "decoupled": ("none", "decoupled_clip"),
    "vaco": ("once", "tv"),
}


@dataclass(frozen=True)
class Algorithm:
    """A row of the table: `name` as the user wrote it, how A is estimated, what becomes of ρA."""

    name: str
    align: Alignment
    filter: Filter

    @property
    def pair(self) -> str:
        """The canonical ``ALIGN+FILTER`` spelling."""
        return f"{self.align.name}+{self.filter.name}"


def parse(name: str) -> Algorithm:
    """Find the row that a name stands for.

    Args:
        name: an alias such as ``vaco`` or a pair such as ``once+tv``.

    Returns:
        The algorithm.

    Raises:
        UserError: no such alias, alignment or filter; the message names the nearest valid spelling.
    """
    if name in ALIASES:
        align, rule = ALIASES[name]
    elif name.count("+") == 1:
        align, rule = name.split("+")
        _seek(*(part for part, known in ((align, ALIGNMENTS), (rule, FILTERS)) if part not in known))
    elif name in FILTERS or name in ALIGNMENTS:
        pair = f"once+{name}" if name in FILTERS else f"{name}+tv"
        raise UserError(f"'{name}' is only half of an algorithm: write a pair ALIGN+FILTER, such as '{pair}'")
    else:
        raise UserError(
            f"there is no algorithm '{name}': {nearest(name, ALIASES)} "
            "(or write a pair ALIGN+FILTER, listed by 'vaco algorithms')"
        )
    if align not in ALIGNMENTS:
        raise UserError(f"there is no alignment '{align}' in '{name}': {nearest(align, ALIGNMENTS)}{ELSEWHERE}")
    if rule not in FILTERS:
        raise UserError(f"there is no filter '{rule}' in '{name}': {nearest(rule, FILTERS)}{ELSEWHERE}")
    return Algorithm(name, ALIGNMENTS[align], FILTERS[rule])


def find_alignment(name: str) -> Alignment:
    """An alignment by its name.

    Raises:
        UserError: there is none; the message names the nearest.
    """
    if name not in ALIGNMENTS:
        _seek(name)
    if name not in ALIGNMENTS:
        raise UserError(f"there is no alignment '{name}': {nearest(name, ALIGNMENTS)}{ELSEWHERE}")
    return ALIGNMENTS[name]


ELSEWHERE = " (one of your own package needs an entry point, or --import)"


def _seek(*names: str) -> None:
    """Load what other packages offer under these names."""
    from vaco.objectives import plugins  # which imports this module

    for name in names:
        plugins.seek(name)


def describe() -> str:
    """The table as text: the aliases, then every alignment and filter with its formula, other packages' included."""
    from vaco.objectives import plugins  # which imports this module

    plugins.load_all()
    width = max(map(len, ALIASES))
    lines = ["Every method ascends mean cᵢ ∇log π(aᵢ|sᵢ);  ρ = π/β,  ρ_T = π_T/β,  u = π/π_T.", ""]
    lines += ["algorithm".ljust(width) + "   = align + filter         coefficient"]
    for alias in ALIASES:
        row = parse(alias)
        lines.append(f"{alias.ljust(width)}   = {row.pair:<22} {row.filter.formula};  {row.align.formula}")
    lines += ["", "Any pair ALIGN+FILTER is valid. Where w is ρ or u, ratio_cap = C > 0 makes wA in them min(w, C) A."]
    lines += ["", "align:"]
    lines += [f"  {a.name:<18} {a.formula}" for a in ALIGNMENTS.values()]
    lines += ["", "filter:"]
    lines += [f"  {f.name:<18} {f.formula}" for f in FILTERS.values()]
    return "\n".join(lines) + "\n"
