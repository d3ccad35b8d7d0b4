"""What PPO's clip and VACO's filter keep of one Gaussian bandit's samples, below and above the threshold.

The data are synchronous: β = π_T = N(0, 1), so that ρ_T = 1 and both rules look at the same ratio. The current policy
has moved to N(m, 1), towards the better actions: A = 0.8·a + noise, standardised as training standardises it. Then
TV(π, β) = 2Φ(m/2) − 1 in closed form, and m chooses the side of the threshold.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from vaco.objectives.align import standardise
from vaco.objectives.filters import DEFAULTS, FILTERS, Filtered, Samples

SAMPLES, SHOWN = 20_000, 260
MOVES = {"below": 0.2, "above": 0.6}
RULES = ("clip", "tv")
BINS = np.linspace(0.0, 3.0, 61)


def bandit(move: float, generator: np.random.Generator, samples: int = SAMPLES) -> Samples:
    """Ratios and advantages of actions drawn from N(0, 1) when the policy has moved to N(`move`, 1)."""
    actions = generator.normal(size=samples)
    advantages = 0.8 * actions + generator.normal(size=samples)
    ratio = torch.from_numpy(np.exp(move * actions - move**2 / 2))
    return Samples(
        ratio=ratio, learner_ratio=torch.ones_like(ratio), advantages=standardise(torch.from_numpy(advantages))
    )


def total_variation(move: float) -> float:
    """TV(N(m, 1), N(0, 1)) = 2Φ(|m|/2) − 1."""
    return math.erf(abs(move) / (2 * math.sqrt(2)))


def _verdict(samples: Samples, rule: str) -> dict[str, Any]:
    verdict: Filtered = FILTERS[rule].function(samples, DEFAULTS)
    kept = verdict.kept.numpy()
    ratio = samples.ratio.numpy()
    counts, _ = np.histogram(ratio[kept], BINS)
    statistic = float(verdict.statistic)
    return {
        "kept_share": float(kept.mean()),
        "statistic": None if math.isnan(statistic) else statistic,
        "triggered": bool(verdict.triggered),
        "kept": kept[:SHOWN].astype(int).tolist(),
        "histogram": counts.tolist(),
    }


def study(generator: np.random.Generator) -> dict[str, Any]:
    """Both rules on both sides of the threshold.

    Returns:
        `delta`, `clip`, `bins`, and for each side the closed-form total variation, the first samples to draw with
        both verdicts on them, histograms of all ratios and of those kept, and the share kept.
    """
    sides = {}
    for side, move in MOVES.items():
        samples = bandit(move, generator)
        ratio = samples.ratio.numpy()
        sides[side] = {
            "move": move,
            "twice_tv": 2 * total_variation(move),
            "ratio": ratio[:SHOWN].tolist(),
            "advantage": samples.advantages.numpy()[:SHOWN].tolist(),
            "histogram": np.histogram(ratio, BINS)[0].tolist(),
            "rules": {rule: _verdict(samples, rule) for rule in RULES},
        }
    settings = {"delta": DEFAULTS.delta, "clip": DEFAULTS.clip}
    return {"samples": SAMPLES, **settings, "bins": BINS.tolist(), "sides": sides}
