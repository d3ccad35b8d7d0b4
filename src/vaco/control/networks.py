"""Actor and critic as a stack of two tanh networks in NumPy, with their gradient written out.

Written out because it pays: for two (64, 64) networks and minibatches of 512 the passes below take about half the time
of the same network under autograd (`benchmarks/NOTES.md`), and the policy gradient needs no more than the
coefficient c of each ∇log π, so there is no loss to differentiate. `tests/control/test_networks.py` holds the gradient
to autograd's.

All parameters are views of one flat float32 vector, so that the optimizer, the gradient norm, snapshots and checkpoints
each handle a single array. Along the leading axis of the stacked arrays, 0 is the actor and 1 the critic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vaco.control.distributions import Distribution, Gaussian
from vaco.control.gaussian import Floats


def parameter_shapes(
    observation_size: int, outputs: int, hidden: Sequence[int], spread: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters, in the order in which they lie in the flat vector.

    Args:
        observation_size: O.
        outputs: M, width of the actor's last layer.
        hidden: widths of the hidden layers, the same for both networks.
        spread: S, parameters of the policy that no state changes; M by default.

    Returns:
        Shape of each parameter; those of hidden layers carry the leading axis (actor, critic).
    """
    shapes: dict[str, tuple[int, ...]] = {}
    width = observation_size
    for layer, next_width in enumerate(hidden):
        shapes[f"hidden.{layer}.weight"] = (2, width, next_width)
        shapes[f"hidden.{layer}.bias"] = (2, 1, next_width)
        width = next_width
    shapes |= {"actor.weight": (width, outputs), "actor.bias": (outputs,)}
    shapes |= {"critic.weight": (width, 1), "critic.bias": (1,), "log_std": (outputs if spread is None else spread,)}
    return shapes


def views(flat: Floats, shapes: dict[str, tuple[int, ...]]) -> dict[str, Floats]:
    """Cut a flat vector into named arrays that share its memory.

    Args:
        flat: shape [P], contiguous.
        shapes: the shapes of all parameters, in order.

    Returns:
        One view a name.
    """
    parts, start = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        parts[name] = flat[start : start + size].reshape(shape)
        start += size
    return parts


def _orthogonal(generator: np.random.Generator, rows: int, columns: int, gain: float) -> Floats:
    """A matrix with orthonormal rows or columns times `gain` (Saxe et al. 2014)."""
    gaussian = generator.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(gaussian)
    q *= np.sign(np.diag(r))  # makes the distribution uniform over orthogonal matrices
    return (gain * (q if rows >= columns else q.T)).astype(np.float32)


class ActorCritic:
    """A policy's actor, parameters of it that no state changes (log σ), and a state-value function.

    Attributes:
        distribution: what the actor's outputs mean; Gaussian by default.
        shapes: of all parameters, see `parameter_shapes`.
        flat: all parameters, float32 [P].
        gradient: the last `backward`'s gradient, float32 [P].
        parameters: named views of `flat`.
    """

    def __init__(
        self, observation_size: int, action_size: int, hidden: Sequence[int], distribution: Distribution | None = None
    ) -> None:
        """Allocate the networks, all parameters zero; see `initialise`.

        Args:
            observation_size: O.
            action_size: A.
            hidden: widths of the tanh layers.
            distribution: over actions; Gaussian by default.
        """
        self.observation_size, self.action_size, self.hidden = observation_size, action_size, tuple(hidden)
        self.distribution = Gaussian(action_size) if distribution is None else distribution
        shapes = parameter_shapes(observation_size, self.distribution.outputs, hidden, self.distribution.spread)
        self.shapes = shapes
        count = sum(int(np.prod(shape)) for shape in shapes.values())
        self.flat: Floats = np.zeros(count, np.float32)
        self.gradient: Floats = np.zeros(count, np.float32)
        self.parameters = views(self.flat, shapes)
        self._gradients = views(self.gradient, shapes)
        self._buffers: dict[int, list[Floats]] = {}

    def initialise(self, generator: np.random.Generator, log_std: float) -> None:
        """Draw orthogonal weights: gain √2 in hidden layers, 0.01 for the actor's outputs, 1 for the value.

        Args:
            generator: source of the draws.
            log_std: initial log σ.
        """
        self.flat[:] = 0.0
        for layer in range(len(self.hidden)):
            weight = self.parameters[f"hidden.{layer}.weight"]
            for network in range(2):
                weight[network] = _orthogonal(generator, weight.shape[1], weight.shape[2], gain=np.sqrt(2.0))
        last = self.hidden[-1]
        self.parameters["actor.weight"][:] = _orthogonal(generator, last, self.distribution.outputs, gain=0.01)
        self.parameters["critic.weight"][:] = _orthogonal(generator, last, 1, gain=1.0)
        self.parameters["log_std"][:] = log_std

    def forward(self, observations: Floats) -> tuple[Floats, Floats]:
        """Evaluate both networks, and remember the activations for `backward`.

        Args:
            observations: standardised, shape [N, O].

        Returns:
            The actor's outputs, shape [N, M], and the value, shape [N].
        """
        p = self.parameters
        self._input, layers = observations, self._activations(len(observations))
        below: Floats = observations
        for layer, activation in enumerate(layers):
            np.matmul(below, p[f"hidden.{layer}.weight"], out=activation)
            activation += p[f"hidden.{layer}.bias"]
            np.tanh(activation, out=activation)
            below = activation
        self._layers = layers
        outputs = below[0] @ p["actor.weight"] + p["actor.bias"]
        value = below[1] @ p["critic.weight"] + p["critic.bias"]
        return outputs, value[:, 0]

    def predict(self, observations: Floats) -> tuple[Floats, Floats]:
        """`forward`, where no `backward` will follow."""
        return self.forward(observations)

    def backward(self, d_outputs: Floats, d_value: Floats, d_log_std: Floats) -> Floats:
        """Gradient of a loss with respect to all parameters, for the observations of the last `forward`.

        Args:
            d_outputs: the loss's derivative with respect to each output, shape [N, M].
            d_value: with respect to each value, shape [N].
            d_log_std: with respect to log σ, shape [S].

        Returns:
            `self.gradient`, overwritten by the next call.
        """
        p, g, layers = self.parameters, self._gradients, self._layers
        top = layers[-1]
        np.matmul(top[0].T, d_outputs, out=g["actor.weight"])
        np.matmul(top[1].T, d_value[:, None], out=g["critic.weight"])
        g["actor.bias"][:] = d_outputs.sum(0)
        g["critic.bias"][:] = d_value.sum()
        g["log_std"][:] = d_log_std
        upstream = np.empty_like(top)
        np.matmul(d_outputs, p["actor.weight"].T, out=upstream[0])
        np.multiply(d_value[:, None], p["critic.weight"].T, out=upstream[1])
        ones = np.ones((1, len(d_value)), np.float32)  # a matrix product sums over samples faster than np.sum
        for layer in reversed(range(len(layers))):
            activation = layers[layer]
            slope = activation * activation
            np.subtract(1.0, slope, out=slope)
            upstream *= slope  # tanh' = 1 − tanh²
            below = self._input.T if layer == 0 else layers[layer - 1].transpose(0, 2, 1)
            np.matmul(below, upstream, out=g[f"hidden.{layer}.weight"])
            np.matmul(ones, upstream, out=g[f"hidden.{layer}.bias"])
            if layer:
                upstream = np.matmul(upstream, p[f"hidden.{layer}.weight"].transpose(0, 2, 1))
        return self.gradient

    def _activations(self, samples: int) -> list[Floats]:
        """Preallocated arrays for the hidden activations of `samples` observations."""
        if samples not in self._buffers:
            self._buffers[samples] = [np.empty((2, samples, width), np.float32) for width in self.hidden]
        return self._buffers[samples]
