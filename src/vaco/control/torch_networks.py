"""Actor and critic as a PyTorch module: other activations, other widths, images, or a module of the user's own.

It stands in the place of `ActorCritic`: parameters and gradient are one flat float32 vector of NumPy's, which the
module's tensors share, so the optimizer, snapshots, checkpoints and the update itself are the same. Slower than the
written-out passes of `networks`, which stay the default; `tests/control/test_torch_networks.py` holds the two together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from vaco.control.distributions import Distribution
from vaco.control.envs.named import callable_of
from vaco.control.gaussian import Floats
from vaco.control.networks import ActorCritic
from vaco.control.policy import Snapshot
from vaco.errors import UserError, said

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
CHUNK = 1024
"""Observations that are evaluated at once where no gradient is asked for: bounds the memory that images take."""


class Perceptrons(nn.Module):
    """Two perceptrons, of widths of their own."""

    def __init__(self, size: int, outputs: int, actor: Sequence[int], critic: Sequence[int], activation: str) -> None:
        """Of `size` inputs; `outputs` is M, and `actor` and `critic` are widths of hidden layers."""
        super().__init__()
        self.actor = _stack(size, actor, outputs, activation)
        self.critic = _stack(size, critic, 1, activation)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [N, M] and values [N, 1]."""
        return self.actor(observations), self.critic(observations)

    def heads(self) -> tuple[nn.Module, nn.Module]:
        """The last layers of actor and critic."""
        return self.actor[-1], self.critic[-1]


class Convolutions(nn.Module):
    """A small convolutional network (Mnih et al. 2015, with fewer channels), shared by two linear heads."""

    def __init__(self, shape: Sequence[int], outputs: int, width: int, activation: str) -> None:
        """For images of `shape` [H, W, C], or [C, H, W] where the first is the least; `width` of the layer above."""
        super().__init__()
        self.shape, self.first = tuple(shape), shape[0] < shape[-1]
        channels = shape[0] if self.first else shape[-1]
        act = ACTIVATIONS[activation]
        small = min(shape[1:] if self.first else shape[:-1]) < 36
        sizes = [(16, 3, 1), (32, 3, 2)] if small else [(16, 8, 4), (32, 4, 2), (32, 3, 1)]
        layers: list[nn.Module] = []
        for filters, kernel, stride in sizes:
            layers += [nn.Conv2d(channels, filters, kernel, stride), act()]
            channels = filters
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            seen = self.convolutions(self._images(torch.zeros(1, math.prod(shape)))).shape[1]
        self.body = nn.Sequential(nn.Linear(seen, width), act())
        self.actor, self.critic = nn.Linear(width, outputs), nn.Linear(width, 1)

    def _images(self, observations: Tensor) -> Tensor:
        images = observations.reshape(len(observations), *self.shape)
        return images if self.first else images.movedim(-1, 1)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [N, M] and values [N, 1] of flat images [N, H·W·C]."""
        features = self.body(self.convolutions(self._images(observations)))
        return self.actor(features), self.critic(features)

    def heads(self) -> tuple[nn.Module, nn.Module]:
        """The last layers of actor and critic."""
        return self.actor, self.critic


def _stack(size: int, widths: Sequence[int], outputs: int, activation: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(size, width), ACTIVATIONS[activation]()]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, outputs))


class TorchActorCritic:
    """A module in the place of `ActorCritic`; see there for what is not said here.

    Attributes:
        module: takes standardised observations [N, O] and returns the actor's outputs [N, M] and values [N] or [N, 1].
        flat: all parameters, then log σ [S], float32 [P].
        gradient: the last `backward`'s gradient, float32 [P].
        parameters: `log_std`, a view of `flat`.
    """

    def __init__(
        self,
        module: nn.Module,
        observation_size: int,
        action_size: int,
        distribution: Distribution,
        device: str = "cpu",
        factory: Callable[[int], nn.Module] | None = None,
    ) -> None:
        """Take over a module, whose parameters become views of one vector, all zero; see `initialise`.

        Args:
            module: see `module`.
            observation_size: O.
            action_size: A.
            distribution: over actions.
            device: of PyTorch. Elsewhere than on the CPU, parameters are copied there before each pass and gradients
                back after it; optimizer and filters stay on the CPU.
            factory: makes the module anew, with the draws of a seed; where it draws weights that `initialise` leaves.

        Raises:
            UserError: the module returns something else, or has no parameters or a state beside them; there is no such
                device.
        """
        _require_stateless(module)
        # Once for all: in training mode the policies of a lag of one would already differ from the learner's.
        self.module, self.distribution, self._factory = module.eval(), distribution, factory
        self.observation_size, self.action_size = observation_size, action_size
        tensors = list(module.parameters())
        count = sum(tensor.numel() for tensor in tensors)
        self.flat: Floats = np.zeros(count + distribution.spread, np.float32)
        self.gradient: Floats = np.zeros_like(self.flat)
        self.parameters = {"log_std": self.flat[count:]}
        self._count = count
        self._cpu = torch.from_numpy(self.flat[:count]), torch.from_numpy(self.gradient[:count])
        try:
            self.device = torch.device(device)
            self._there = tuple(tensor.to(self.device) for tensor in self._cpu)
            module.to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device is '{device}', which PyTorch has not here: leave it at 'cpu'") from error
        initial = nn.utils.parameters_to_vector(tensors).detach() if tensors else torch.zeros(0)
        start = 0
        for tensor in tensors:
            part = slice(start, start + tensor.numel())
            tensor.data = self._there[0][part].view_as(tensor)
            tensor.grad = self._there[1][part].view_as(tensor)
            start = part.stop
        self._cpu[0].copy_(initial)
        self._require_shapes()

    def _require_shapes(self) -> None:
        """Refuse a module of other inputs and outputs, or that has nothing to learn."""
        wanted = (
            f"outputs [N, {self.distribution.outputs}] and values [N] for observations [N, {self.observation_size}]"
        )
        rows = np.repeat(np.array([[1.0], [0.0]], np.float32), self.observation_size, axis=1)
        try:
            outputs, values = self.predict(rows)
            alone = self.predict(rows[:1])
        except Exception as error:
            raise UserError(f"the network does not give {wanted} ({said(error)[:200]}): mend its factory") from error
        if outputs.shape != (2, self.distribution.outputs) or values.shape != (2,) or not self._count:
            raise UserError(f"the network gives {outputs.shape} and {values.shape}, not {wanted}: mend its factory")
        for whole, part in zip((outputs, values), alone, strict=True):
            if not np.allclose(whole[:1], part, rtol=1e-3, atol=1e-5, equal_nan=True):
                raise UserError(
                    "the network gives one observation two answers, alone and beside another, but a policy must be a "
                    "function of the observation: leave out what is random, remembers, or looks at the batch"
                )

    def initialise(self, generator: np.random.Generator, log_std: float) -> None:
        """Draw weights: those of two or more dimensions orthogonal with gain √2, biases zero, others by the factory.

        The heads that the module names by a method `heads` have the gains 0.01 and 1; a module with a method
        `initialise(torch.Generator)` does it all itself.

        Args:
            generator: source of the draws.
            log_std: initial log σ.

        Raises:
            UserError: the module's own method fails.
        """
        source = torch.Generator().manual_seed(int(generator.integers(2**63)))
        own: Any = getattr(self.module, "initialise", None)
        with torch.no_grad():
            if self._factory is not None:
                # Not the seed of `source`, whose draws would be these numbers again.
                drawn = self._factory(int(generator.integers(2**63))).parameters()
                for tensor, other in zip(self.module.parameters(), drawn, strict=True):
                    tensor.copy_(other)
            if callable(own):
                try:
                    own(source)
                except Exception as error:
                    raise UserError(
                        f"the network's method 'initialise' fails ({said(error)[:200]}): it is called with a "
                        "torch.Generator"
                    ) from error
            else:
                heads: Any = getattr(self.module, "heads", tuple)
                gains = dict(zip(heads(), (0.01, 1.0), strict=False))  # none where the module names none
                for part in self.module.modules():
                    for name, tensor in part.named_parameters(recurse=False):
                        if tensor.dim() >= 2:
                            fresh = torch.empty(tensor.shape)
                            nn.init.orthogonal_(fresh, gains.get(part, math.sqrt(2.0)), generator=source)
                            tensor.copy_(fresh)
                        elif name.startswith("bias"):
                            tensor.zero_()
            self._cpu[0].copy_(self._there[0])
        self.parameters["log_std"][:] = log_std

    def forward(self, observations: Floats) -> tuple[Floats, Floats]:
        """See `ActorCritic.forward`."""
        self._there[0].copy_(self._cpu[0])
        outputs, values = self.module(torch.from_numpy(observations).to(self.device))
        self._last = outputs, values.reshape(len(observations))
        return self._last[0].detach().cpu().numpy(), self._last[1].detach().cpu().numpy()

    def backward(self, d_outputs: Floats, d_value: Floats, d_log_std: Floats) -> Floats:
        """See `ActorCritic.backward`."""
        self._there[1].zero_()
        given = [torch.from_numpy(part).to(self.device) for part in (d_outputs, d_value)]
        torch.autograd.backward(list(self._last), given)
        self._cpu[1].copy_(self._there[1])
        self.gradient[self._count :] = d_log_std
        return self.gradient

    @torch.no_grad()
    def predict(self, observations: Floats, flat: Floats | None = None) -> tuple[Floats, Floats]:
        """Outputs and values without remembering anything, of these parameters or of a flat vector's."""
        own = self._cpu[0] if flat is None else torch.from_numpy(np.ascontiguousarray(flat[: self._count]))
        named = self._named(own.to(self.device))
        found = []
        for start in range(0, len(observations), CHUNK):
            inputs = torch.from_numpy(observations[start : start + CHUNK]).to(self.device)
            outputs, values = functional_call(self.module, named, (inputs,))
            found.append((outputs.cpu().numpy(), values.reshape(len(inputs)).cpu().numpy()))
        return np.concatenate([part[0] for part in found]), np.concatenate([part[1] for part in found])

    def tensors(self, flat: Floats) -> dict[str, Floats]:
        """The module's parameters by its own names, views of a flat vector; log σ is `log_std`."""
        named = {name: part.numpy() for name, part in self._named(torch.from_numpy(flat[: self._count])).items()}
        return named | ({"log_std": flat[self._count :]} if self.distribution.spread else {})

    def _named(self, vector: Tensor) -> dict[str, Tensor]:
        found, start = {}, 0
        for name, tensor in self.module.named_parameters():
            found[name] = vector[start : start + tensor.numel()].view_as(tensor)
            start += tensor.numel()
        return found


def _require_stateless(module: nn.Module) -> None:
    """Refuse a module that is more than its parameters: what else it keeps is in no snapshot, checkpoint or policy.

    Raises:
        UserError: it has buffers that it would save, or parameters without a shape.
    """
    named = dict(module.named_parameters(remove_duplicate=False))
    if lazy := [name for name, tensor in named.items() if nn.parameter.is_lazy(tensor)]:
        raise UserError(f"the network's '{lazy[0]}' has no shape yet: give its layer the number of its inputs")
    if kept := sorted(set(module.state_dict()) - set(named)):
        raise UserError(
            f"the network keeps '{kept[0]}' beside its parameters, which would not be saved with the policy: use a "
            "layer without such a state, as LayerNorm in the place of BatchNorm, or, for a constant, "
            "register_buffer(..., persistent=False)"
        )


class TorchActors:
    """The policies of all actors: each distinct snapshot is evaluated once for the actors that have it."""

    def __init__(self, snapshots: Sequence[Snapshot], template: TorchActorCritic) -> None:
        """Take the snapshot of each actor; where all are the same one, it serves any number of observations."""
        self._template = template
        self.shared = all(snapshot is snapshots[0] for snapshot in snapshots)
        self._snapshots = list({id(snapshot): snapshot for snapshot in snapshots}.values())
        rows = [[i for i, one in enumerate(snapshots) if one is snapshot] for snapshot in self._snapshots]
        self._rows = [np.array(own) for own in rows]
        width = template.distribution.spread
        chosen = snapshots[:1] if self.shared else snapshots
        self.log_std: Floats = np.stack([s.flat[len(s.flat) - width :] for s in chosen])

    def outputs(self, observations: Floats) -> Floats:
        """See `policy.Actors.outputs`."""
        width = self._template.distribution.outputs
        result = np.empty((*observations.shape[:-1], width), np.float32)
        for snapshot, rows in zip(self._snapshots, self._rows, strict=True):
            seen = observations if self.shared else observations[..., rows, :]
            inputs = snapshot.standardise(seen).reshape(-1, observations.shape[-1])
            made = self._template.predict(inputs, snapshot.flat)[0].reshape(*seen.shape[:-1], width)
            if self.shared:
                return made
            result[..., rows, :] = made
        return result


def _own(network: str, shape: tuple[int, ...], outputs: int, seed: int) -> nn.Module:
    """The module that a function of the user's makes, with draws of PyTorch's global generator from a seed.

    Raises:
        UserError: there is no such function, it fails, or it makes something else.
    """
    factory = callable_of(network, "network")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            module = factory(shape, outputs)
        except Exception as error:
            raise UserError(
                f"the network '{network}' cannot be made ({said(error)[:200]}): it is called as make(shape, outputs), "
                f"here make({shape}, {outputs})"
            ) from error
    if not isinstance(module, nn.Module):
        raise UserError(
            f"network is '{network}', which makes no torch.nn.Module but {type(module).__name__}: return one"
        )
    return module


def make_networks(
    settings: Mapping[str, object],
    *,
    shape: Sequence[int],
    observation_size: int,
    action_size: int,
    distribution: Distribution,
) -> ActorCritic | TorchActorCritic:
    """The networks that a run's settings ask for: NumPy's where they can be.

    Args:
        settings: `hidden`, and where they differ from their defaults `value_hidden`, `activation`, `network`, `device`.
        shape: of an observation before it is flattened, for images.
        observation_size: O.
        action_size: A.
        distribution: over actions.

    Raises:
        UserError: `network` names nothing that makes such a module, or "cnn" is asked for without images.
    """
    hidden = [int(width) for width in settings["hidden"]]  # type: ignore[attr-defined]
    critic = [int(width) for width in settings.get("value_hidden", ())] or hidden  # type: ignore[attr-defined]
    activation, network = str(settings.get("activation", "tanh")), str(settings.get("network", ""))
    device = str(settings.get("device", "cpu"))
    if not network and critic == hidden and activation == "tanh" and device == "cpu":
        return ActorCritic(observation_size, action_size, hidden, distribution)
    outputs = distribution.outputs
    module: nn.Module
    factory = None
    if not network:
        module = Perceptrons(observation_size, outputs, hidden, critic, activation)
    elif network == "cnn":
        if len(shape) != 3 or min(shape[0], shape[-1]) > 16 or min(sorted(shape)[1:]) < 7:
            raise UserError(
                f"network is 'cnn', but observations have the shape {tuple(shape)}: images of at least 7 x 7 pixels, "
                "with at most 16 channels first or last, were expected"
            )
        module = Convolutions(shape, outputs, hidden[-1], activation)
    else:
        factory = functools.partial(_own, network, tuple(shape), outputs)
        # Of one seed for all runs, as `saved.load` knows none: constants that are no parameters are the same there. The
        # parameters are drawn again by `initialise`.
        module = factory(0)
    return TorchActorCritic(module, observation_size, action_size, distribution, device, factory)
