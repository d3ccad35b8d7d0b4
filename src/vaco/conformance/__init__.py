"""Which rule is a loss? Its coefficients by autograd, on hard batches, beside those of a row of `vaco.rules`.

A loss of log-probabilities has in every sample the coefficient c = −N ∂loss/∂log π(a), whatever it is called. From a
test of one's own:

    from vaco.conformance import assert_matches
    assert_matches(lambda logp, batch: my_loss(logp, batch.behaviour_logp, batch.advantages, batch.mask), "ppo")

and from the command line ``vaco conformance --loss my_package.my_module:function --rule ppo``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vaco.conformance.batches import Batch, hard_batches
    from vaco.conformance.comparison import Report, assert_matches, closest, compare, robustness

__all__ = ["Batch", "Report", "assert_matches", "closest", "compare", "hard_batches", "robustness"]


def __getattr__(name: str) -> Any:
    """Load PyTorch when it is first needed, not when the command line is parsed."""
    if name not in __all__:
        raise AttributeError(f"module 'vaco.conformance' has no attribute '{name}'")
    home = "batches" if name in ("Batch", "hard_batches") else "comparison"
    return getattr(import_module(f"vaco.conformance.{home}"), name)
