"""Policies as they act: normalisers, the snapshot that the buffer holds, and the policies of all actors together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vaco.control.gaussian import Doubles, Floats
from vaco.control.networks import ActorCritic, views


class Normaliser:
    """Running mean and variance, merged a phase at a time (Chan et al. 1979), in float64."""

    def __init__(self, size: int, indicators: NDArray[np.bool_] | None = None) -> None:
        """Start with no data: mean 0, variance 1.

        Args:
            size: number of features.
            indicators: [size], those that are 0 or 1 and are left as they are: standardised, a rare one would be huge.
        """
        self.indicators = None if indicators is None or not indicators.any() else indicators
        self.count = 0.0
        self.mean: Doubles = np.zeros(size)
        self.variance: Doubles = np.ones(size)

    def update(self, values: NDArray[np.floating]) -> None:
        """Merge a batch.

        Args:
            values: shape [N, size]; N = 0 changes nothing.
        """
        if not len(values):
            return
        values = values.astype(np.float64)
        count, mean, variance = len(values), values.mean(0), values.var(0)
        total = self.count + count
        shift = mean - self.mean
        spread = self.variance * self.count + variance * count + shift**2 * self.count * count / total
        self.mean = self.mean + shift * count / total
        self.variance = spread / total
        self.count = total

    def shift_and_scale(self) -> tuple[Floats, Floats]:
        """Mean and 1 / standard deviation, [size] float32 each; 0 and 1 for indicators."""
        shift = self.mean.astype(np.float32)
        scale = (1.0 / np.sqrt(self.variance + 1e-8)).astype(np.float32)
        if self.indicators is not None:
            shift[self.indicators], scale[self.indicators] = 0.0, 1.0
        return shift, scale

    def state(self) -> Doubles:
        """Everything as one array [2·size + 1], for a checkpoint."""
        return np.concatenate([[self.count], self.mean, self.variance])

    def set_state(self, state: Doubles) -> None:
        """Restore what `state` returned."""
        size = len(self.mean)
        self.count, self.mean, self.variance = float(state[0]), state[1 : size + 1].copy(), state[size + 1 :].copy()


@dataclass(frozen=True)
class Snapshot:
    """A policy frozen at the end of a phase, with the observation normaliser that belongs to it.

    Were the statistics kept outside, they would drift away from the stored log-probabilities: the same parameters with
    other statistics are another policy.

    Attributes:
        version: number of phases completed when it was taken.
        flat: all parameters, float32 [P].
        shift: mean of the observations, float32 [O].
        scale: 1 / standard deviation of the observations, float32 [O].
        clip: limit of standardised observations.
    """

    version: int
    flat: Floats
    shift: Floats
    scale: Floats
    clip: float

    def standardise(self, observations: Floats) -> Floats:
        """Standardise and clip observations of shape [..., O]."""
        standardised: Floats = np.clip((observations - self.shift) * self.scale, -self.clip, self.clip)
        return standardised


class HasParameters(Protocol):
    """Networks, as far as a snapshot is concerned."""

    flat: Floats


def take_snapshot(networks: HasParameters, normaliser: Normaliser, version: int, clip: float) -> Snapshot:
    """Freeze the current policy.

    Args:
        networks: the networks; their parameters are copied.
        normaliser: observation statistics; copied.
        version: phases completed.
        clip: limit of standardised observations.

    Returns:
        A snapshot that shares no memory with its arguments.
    """
    return Snapshot(version, networks.flat.copy(), *normaliser.shift_and_scale(), clip)


class Actors:
    """The policies of all actors, evaluated together: one batched matrix product a layer, no loop over actors."""

    def __init__(self, snapshots: Sequence[Snapshot], template: ActorCritic) -> None:
        """Stack the snapshots' actor parameters.

        Args:
            snapshots: the snapshot of each actor, length E; when all are the same one, a plain product serves.
            template: networks of the same shape.
        """
        shapes = template.shapes
        self.shared = all(snapshot is snapshots[0] for snapshot in snapshots)
        chosen = snapshots[:1] if self.shared else snapshots
        parts = [views(snapshot.flat, shapes) for snapshot in chosen]

        def stack(name: str, index: int | None = None) -> Floats:
            arrays = [part[name] if index is None else part[name][index] for part in parts]
            return arrays[0] if self.shared else np.stack(arrays)

        depth = range(len(template.hidden))
        self._weights = [stack(f"hidden.{layer}.weight", 0) for layer in depth] + [stack("actor.weight")]
        biases = [stack(f"hidden.{layer}.bias", 0) for layer in depth] + [stack("actor.bias")]
        self._biases = [bias.reshape(-1, bias.shape[-1]) if self.shared else bias for bias in biases]
        self._biases = [bias if self.shared else bias.reshape(len(bias), 1, -1) for bias in self._biases]
        self._shift = np.stack([snapshot.shift for snapshot in chosen])
        self._scale = np.stack([snapshot.scale for snapshot in chosen])
        self._clip = chosen[0].clip
        self.log_std: Floats = np.stack([part["log_std"] for part in parts])  # [E or 1, S]

    def outputs(self, observations: Floats) -> Floats:
        """What each actor's network puts out for its own observations: of a Gaussian, the mean action.

        Args:
            observations: raw, shape [E, O] for one step or [T, E, O] for many.

        Returns:
            Shape [E, M] or [T, E, M].
        """
        x = (observations - self._shift) * self._scale
        np.clip(x, -self._clip, self._clip, out=x)
        if self.shared:
            return self._layers(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)
        if x.ndim == 2:
            return self._layers(x[:, None])[:, 0]
        return self._layers(np.ascontiguousarray(x.swapaxes(0, 1))).swapaxes(0, 1)

    def _layers(self, x: Floats) -> Floats:
        """Apply the networks to [N, O] (shared) or [E, N, O]."""
        for weight, bias in zip(self._weights[:-1], self._biases[:-1], strict=True):
            x = x @ weight
            x += bias
            np.tanh(x, out=x)
        return x @ self._weights[-1] + self._biases[-1]
