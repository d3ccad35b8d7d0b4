"""Align & Filter: asynchronous on-policy reinforcement learning under policy lag (VACO, arXiv 2603.01365).

For other people's trainers: `policy_loss`, `trigger_statistic`, `align`, `diagnose` and `rules`. Runs: `train`, `sweep`
and `load`. They load PyTorch when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaco.control.saved import load
    from vaco.diagnostics import Diagnostics, Statistic
    from vaco.errors import UserError
    from vaco.loss import align, diagnose, policy_loss, trigger_statistic
    from vaco.objectives.align import Aligned
    from vaco.objectives.rules import Rule, rules
    from vaco.study import Study, sweep, train

__version__ = "0.1.0"
__all__ = [
    "Aligned",
    "Diagnostics",
    "Rule",
    "Statistic",
    "Study",
    "UserError",
    "__version__",
    "align",
    "diagnose",
    "load",
    "policy_loss",
    "rules",
    "sweep",
    "train",
    "trigger_statistic",
]

_HOMES = {
    **dict.fromkeys(("align", "diagnose", "policy_loss", "trigger_statistic"), "vaco.loss"),
    **dict.fromkeys(("Diagnostics", "Statistic"), "vaco.diagnostics"),
    **dict.fromkeys(("Rule", "rules"), "vaco.objectives.rules"),
    "Aligned": "vaco.objectives.align",
    **dict.fromkeys(("Study", "sweep", "train"), "vaco.study"),
    "load": "vaco.control.saved",
    "UserError": "vaco.errors",
}


def __getattr__(name: str) -> Any:
    """Load a public name's module when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vaco' has no attribute '{name}'")
    try:
        home = import_module(_HOMES[name])
    except ModuleNotFoundError as error:
        from vaco.extras import missing

        raise missing(error) or error from error
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
