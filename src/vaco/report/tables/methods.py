"""What every method is called and how it is drawn, in tables, figures and prose alike.

Each algorithm has one colour, marker and line style everywhere. The colours are those of Okabe and Ito, which readers
with any colour vision can tell apart; the line styles and markers tell the lines apart without colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

DashStyle = str | tuple[float, tuple[float, ...]]
SOLID: DashStyle = "solid"


@dataclass(frozen=True)
class Look:
    """How one algorithm is drawn."""

    label: str
    colour: str
    marker: str
    dashes: DashStyle = SOLID
    width: float = 1.2
    order: float = 3.0

    @property
    def line(self) -> dict[str, Any]:
        """Keyword arguments of a line."""
        return {"color": self.colour, "linestyle": self.dashes, "linewidth": self.width, "zorder": self.order}

    @property
    def point(self) -> dict[str, Any]:
        """Keyword arguments of a marker on a line; white edges keep overlapping markers apart."""
        size = {"P": 5.6, "X": 5.4, "*": 6.5, "s": 4.4, "D": 4.2}.get(self.marker, 4.8)
        return {"marker": self.marker, "markersize": size, "markeredgecolor": "white", "markeredgewidth": 0.5}


LOOKS: Mapping[str, Look] = {
    "vaco": Look("VACO", "#D55E00", "o", SOLID, 2.2, 6.0),
    "ppo": Look("PPO", "#0072B2", "s", (0, (5, 1.5)), 1.5, 5.0),
    "geppo": Look("GePPO", "#000000", "D", (0, (1.2, 1.2)), 1.3, 4.0),
    "spo": Look("SPO", "#009E73", "^", (0, (6, 1.5, 1.2, 1.5)), 1.3, 4.0),
    "ppo_kl": Look("PPO-KL", "#56B4E9", "v", (0, (3, 1.2)), 1.3, 4.0),
    "impala": Look("IMPALA", "#CC79A7", "P", (0, (8, 1.5, 1.2, 1.5, 1.2, 1.5)), 1.3, 4.0),
    "decoupled": Look("Decoupled PPO", "#E69F00", "X", (0, (4, 1, 1, 1)), 1.3, 4.0),
}

# Pairs ALIGN+FILTER without an alias that stand in the comparison beside the aliases. What tells two forms of a method
# apart is the policy that its trust region is centred on, so their labels say it.
PAIRS: Mapping[str, Look] = {
    "once+tv_total": Look("VACO (β)", "#8C2D04", "h", (0, (9, 1.5)), 2.0, 5.5),
    "none+proximal_clip": Look("PPO (π_T)", "#08306B", "<", (0, (2, 1)), 1.4, 4.5),
    "none+spo_proximal": Look("SPO (π_T)", "#00441B", ">", (0, (5, 1, 1.2, 1)), 1.3, 4.0),
    "none+kl_total": Look("PPO-KL (β)", "#3F007D", "p", (0, (3, 2.4)), 1.3, 4.0),
    "once+centred_clip_fixed": Look("Centred clip (π_T)", "#525252", "d", (0, (1.2, 2.2)), 1.3, 4.0),
    "once+centred_clip_lag": Look("Centred clip by lag (π_T)", "#969696", "8", (0, (7, 1, 1, 1, 1, 1)), 1.3, 4.0),
}
# The same of the aliases, for legends in which both forms stand. GePPO's clip, without the reuse of data that its
# shrinking is for, is not GePPO.
_CENTRED = {
    "vaco": "VACO (π_T)",
    "ppo": "PPO (β)",
    "spo": "SPO (β)",
    "ppo_kl": "PPO-KL (π_T)",
    "decoupled": "Decoupled PPO (π_T)",
    "geppo": "Centred clip by age (π_T)",
}

# Other pairs: the filter gives colour and marker, the alignment the line style.
_FILTERS = {
    "clip": ("#0072B2", "s"),
    "tv": ("#D55E00", "o"),
    "tv_total": ("#E69F00", "h"),
    "tv_proximal": ("#F0E442", "p"),
    "kl": ("#56B4E9", "v"),
    "spo": ("#009E73", "^"),
    "truncated": ("#CC79A7", "P"),
    "centred_clip": ("#000000", "D"),
    "decoupled_clip": ("#999999", "X"),
    "proximal_clip": ("#08306B", "<"),
    "spo_proximal": ("#00441B", ">"),
    "kl_total": ("#3F007D", "p"),
    "centred_clip_fixed": ("#525252", "d"),
    "centred_clip_lag": ("#969696", "8"),
    "none": ("#666666", "*"),
}
_ALIGNMENTS: Mapping[str, DashStyle] = {"none": (0, (1.2, 1.2)), "once": SOLID, "continuous": (0, (5, 1.5))}
_SYMBOLS = {"delta": "δ", "clip": "ε", "epochs": "epochs"}
_VARIANT_MARKERS = "<>8*HpdX"


def filter_look(rule: str) -> tuple[str, str]:
    """Colour and marker of a filter, the same as in every pair that uses it."""
    return _FILTERS.get(rule, ("#666666", "*"))


def look(name: str, methods: Mapping[str, Any] | None = None) -> Look:
    """How a path name is drawn: an alias, a pair ALIGN+FILTER, or a named variant of either.

    Args:
        name: the name.
        methods: `methods` of `summary.json`, for the settings of variants.
    """
    if name in LOOKS or name in PAIRS:
        return LOOKS[name] if name in LOOKS else PAIRS[name]
    if "+" in name:
        align, rule = name.split("+")
        colour, marker = filter_look(rule)
        return Look(f"{align} + {rule}", colour, marker, _ALIGNMENTS.get(align, SOLID))
    method = (methods or {}).get(name)
    if method is None:
        return Look(name, "#666666", "*")
    base = look(method["algorithm"])
    settings = ", ".join(f"{_SYMBOLS.get(key, key)} = {value}" for key, value in method["settings"].items())
    siblings = sorted(key for key, value in (methods or {}).items() if value["algorithm"] == method["algorithm"])
    marker = _VARIANT_MARKERS[siblings.index(name) % len(_VARIANT_MARKERS)]
    return replace(base, label=f"{base.label} {settings}", marker=marker, width=1.2, order=3.5)


def centred_label(name: str, methods: Mapping[str, Any] | None = None) -> str:
    """The label of `look` with the policy in brackets that the trust region is centred on, where the method has one.

    Args:
        name: as for `look`.
        methods: as for `look`.
    """
    algorithm = (methods or {}).get(name, {"algorithm": name})["algorithm"]
    plain, own = look(algorithm).label, look(name, methods).label
    return _CENTRED.get(algorithm, plain) + own.removeprefix(plain)
