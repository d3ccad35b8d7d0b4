"""How far an update of the observation normaliser alone moves the policy.

The normaliser belongs to the policy: the same parameters with other statistics act otherwise. Its update at the end of
a phase is a step that no filter sees, so it is measured by itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from vaco.control.acting import Networks, acting
from vaco.control.collect import Batch
from vaco.control.policy import Snapshot
from vaco.objectives.divergence import weighted_mean

STATES = 256
"""States on which it is measured, evenly spaced over the phase's steps: two forward passes of the actor over all 2048
would cost more than a per cent of a phase, and the mean of a bounded quantity needs no more."""


def normaliser_lag(before: Snapshot, after: Snapshot, template: Networks, batch: Batch) -> float:
    """TV between two policies with the parameters of `after`, one with the statistics of each snapshot.

    What ½ mean|π'/π − 1| over actions of π estimates, but in closed form, since two Gaussians share σ: the phase's
    actions are those of β, under which that mean is no total variation (ALGORITHMS B.g).

    Args:
        before: the snapshot of the phase's start, with the statistics that the phase was standardised by.
        after: that of its end.
        template: networks of the policy's shape.
        batch: the phase's data, whose states it is a mean over.

    Returns:
        In [0, 1], or NaN where no closed form is cheap; 0 where the statistics are the same, as when observations are
        not normalised.
    """
    if np.array_equal(before.shift, after.shift) and np.array_equal(before.scale, after.scale):
        return 0.0
    stride = max(1, batch.dead.size // STATES)
    states = batch.observations[:-1][::stride]
    old = replace(after, shift=before.shift, scale=before.scale)
    first, second = acting([old], template), acting([after], template)
    distance = template.distribution.total_variation(first.outputs(states), second.outputs(states), second.log_std)
    return float(weighted_mean(distance, torch.from_numpy((~batch.dead[::stride]).astype(np.float32))))
