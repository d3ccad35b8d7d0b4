"""TBA and OAPL: they fit the log-probability of a whole response to its reward, and use no importance ratio at all.

So their coefficient belongs to the sequence, and there is nothing to filter.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vaco.objectives.pytorch import torch

if TYPE_CHECKING:
    from torch import Tensor


def tba_coefficient(rewards: Tensor, reference_log_ratio: Tensor, temperature: float) -> Tensor:
    """Trajectory balance with the group's mean as log-partition (TBA, arXiv 2503.18929; VarGrad).

    The loss mean(log Ẑ + log π/π_ref − R/b)² has, up to the factor 2/b, the ascent coefficient
    c = (R − b log π/π_ref) − its group mean, on ∇log π of the whole response.

    Args:
        rewards: R, [groups, members].
        reference_log_ratio: log π(y|x)/π_ref(y|x) of whole responses, [groups, members]; constant.
        temperature: b.

    Returns:
        c, [groups, members].
    """
    value = rewards - temperature * reference_log_ratio
    return value - value.mean(-1, keepdim=True)


def oapl_coefficient(rewards: Tensor, behaviour_log_ratio: Tensor, temperature: float) -> Tensor:
    """Off-policy advantage regression towards the lagged policy (OAPL, arXiv 2602.19362).

    The loss mean(b log π/π_lag − (R − V̂))² with V̂ = b log mean exp(R/b) over the group has, up to the factor 2b, the
    ascent coefficient c = R − V̂ − b log π/π_lag, on ∇log π of the whole response.

    Args:
        rewards: R, [groups, members].
        behaviour_log_ratio: log π(y|x)/π_lag(y|x) of whole responses, [groups, members]; constant.
        temperature: b.

    Returns:
        c, [groups, members].
    """
    value = temperature * (torch.logsumexp(rewards / temperature, -1, keepdim=True) - math.log(rewards.shape[-1]))
    return rewards - value - temperature * behaviour_log_ratio
