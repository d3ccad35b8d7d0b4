"""The Gaussian policy: log-probabilities and their gradients, normalisers, and the snapshot that the buffer holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaco.control.networks import ActorCritic, Floats, parameter_shapes, views

Doubles = NDArray[np.float64]


def standard_score(actions: Floats, mean: Floats, log_std: Floats) -> Doubles:
    """(a − μ)/σ in float64.

    Float64 because a float32 log-probability of −20 is off by 10⁻⁶, which would already blur a ratio that must be 1.

    Args:
        actions: shape [..., A].
        mean: shape [..., A].
        log_std: broadcastable to [..., A].

    Returns:
        Shape [..., A].
    """
    return (actions.astype(np.float64) - mean) * np.exp(-log_std.astype(np.float64))


def log_probability(score: Doubles, log_std: Floats) -> Doubles:
    """Joint log-density of an action with independent Gaussian components: one number a sample, not one a dimension.

    Args:
        score: (a − μ)/σ, shape [..., A].
        log_std: broadcastable to [..., A].

    Returns:
        Shape [...], nats.
    """
    dimensions = score.shape[-1]
    constant = log_std.astype(np.float64).sum(-1) + 0.5 * dimensions * math.log(2.0 * math.pi)
    logp: Doubles = -0.5 * np.einsum("...i,...i->...", score, score) - constant
    return logp


class Normaliser:
    """Running mean and variance, merged a phase at a time (Chan et al. 1979), in float64."""

    def __init__(self, size: int) -> None:
        """Start with no data: mean 0, variance 1.

        Args:
            size: number of features.
        """
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


def take_snapshot(networks: ActorCritic, normaliser: Normaliser, version: int, clip: float) -> Snapshot:
    """Freeze the current policy.

    Args:
        networks: the networks; their parameters are copied.
        normaliser: observation statistics; copied.
        version: phases completed.
        clip: limit of standardised observations.

    Returns:
        A snapshot that shares no memory with its arguments.
    """
    scale = 1.0 / np.sqrt(normaliser.variance + 1e-8)
    return Snapshot(version, networks.flat.copy(), normaliser.mean.astype(np.float32), scale.astype(np.float32), clip)


class Actors:
    """The policies of all actors, evaluated together: one batched matrix product a layer, no loop over actors."""

    def __init__(self, snapshots: Sequence[Snapshot], template: ActorCritic) -> None:
        """Stack the snapshots' actor parameters.

        Args:
            snapshots: the snapshot of each actor, length E; when all are the same one, a plain product serves.
            template: networks of the same shape.
        """
        shapes = parameter_shapes(template.observation_size, template.action_size, template.hidden)
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
        self.log_std: Floats = np.stack([part["log_std"] for part in parts])  # [E or 1, A]
        self.std: Floats = np.exp(self.log_std)

    def mean(self, observations: Floats) -> Floats:
        """Mean action of each actor for its own observations.

        Args:
            observations: raw, shape [E, O] for one step or [T, E, O] for many.

        Returns:
            Shape [E, A] or [T, E, A].
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


def policy_gradient(score: Doubles, log_std: Floats, coefficient: Doubles) -> tuple[Doubles, Doubles]:
    """Σᵢ cᵢ ∇log π(aᵢ|sᵢ) of a Gaussian, with respect to its means and log σ.

    With z = (a − μ)/σ, ∂log π/∂μ = z/σ and ∂log π/∂log σ = z² − 1 in each dimension.

    Args:
        score: z, shape [N, A].
        log_std: log σ, shape [A].
        coefficient: c, shape [N].

    Returns:
        Derivatives with respect to the means, [N, A], and to log σ, [A].
    """
    d_mean = score * np.exp(-log_std.astype(np.float64)) * coefficient[:, None]
    return d_mean, coefficient @ score**2 - coefficient.sum()


def kl_gradient(
    mean: Floats, log_std: Floats, old_mean: Floats, old_log_std: Floats, weights: Doubles
) -> tuple[Doubles, Doubles]:
    """Σᵢ wᵢ ∇KL(old‖new) of Gaussians, with respect to the new means and the new log σ.

    Args:
        mean: new means, [N, A].
        log_std: new log σ, [A].
        old_mean: old means, [N, A].
        old_log_std: old log σ, [A], or [N, A] where the old policies are several.
        weights: w, [N].

    Returns:
        Derivatives with respect to the means, [N, A], and to log σ, [A].
    """
    inverse_std = np.exp(-log_std.astype(np.float64))
    shift = (mean.astype(np.float64) - old_mean) * inverse_std
    spread = np.exp(2.0 * (old_log_std.astype(np.float64) - log_std))
    grown = weights.sum() * (1.0 - spread) if spread.ndim == 1 else weights @ (1.0 - spread)
    return weights[:, None] * shift * inverse_std, grown - weights @ shift**2
