"""The policy that a run leaves, ``policy.safetensors``: its tensors have names, and a policy is made of them again.

Names and layout are those of ``torch.nn.Sequential``: ``actor.0.weight`` [out, in], ``actor.0.bias``, a tanh, then
``actor.2``, and so on; ``critic`` alike. Besides them ``log_std`` (Gaussian policies), ``observation_shift`` and
``observation_scale``. A PyTorch module of another kind has its own names. Files of before tensors had names hold one
flat vector, and are read as well.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaco.control.acting import Acting, Networks, acting
from vaco.control.distributions import distribution_of
from vaco.control.envs import EnvSpec
from vaco.control.gaussian import Floats
from vaco.control.networks import ActorCritic, views
from vaco.control.policy import Snapshot
from vaco.control.torch_networks import make_networks
from vaco.errors import UserError
from vaco.runs import checkpoint
from vaco.runs.config import RunConfig
from vaco.runs.folder import POLICY

Arrays = dict[str, NDArray[Any]]


def named(networks: Networks, flat: Floats) -> Arrays:
    """The parameters of a flat vector by name, views of it, as the module says."""
    if not isinstance(networks, ActorCritic):
        return dict(networks.tensors(flat))
    parts = views(flat, networks.shapes)
    found: Arrays = {}
    for row, network in enumerate(("actor", "critic")):
        depth = len(networks.hidden)
        for layer in range(depth):
            found[f"{network}.{2 * layer}.weight"] = parts[f"hidden.{layer}.weight"][row].T
            found[f"{network}.{2 * layer}.bias"] = parts[f"hidden.{layer}.bias"][row, 0]
        found[f"{network}.{2 * depth}.weight"] = parts[f"{network}.weight"].T
        found[f"{network}.{2 * depth}.bias"] = parts[f"{network}.bias"]
    if networks.distribution.spread:
        found["log_std"] = parts["log_std"]
    return found


def flat_of(networks: Networks, tensors: Mapping[str, NDArray[Any]]) -> Floats:
    """The inverse of `named`.

    Raises:
        KeyError: a tensor is missing.
    """
    flat = np.zeros_like(networks.flat)
    for name, part in named(networks, flat).items():  # views of the vector
        part[...] = tensors[name]
    return flat


def described(config: RunConfig, networks: Networks, shape: Sequence[int]) -> dict[str, Any]:
    """What a policy's file says besides its tensors; `shape` is that of an observation before it is flattened."""
    said: dict[str, Any] = {
        "observation_size": networks.observation_size,
        "action_size": networks.action_size,
        "env": config.env,
        "backend": config.backend,
        "clip": config.observation_limit,
        "hidden": list(config.hidden),
    }
    more: dict[str, Any] = {"env_args": config.environment_arguments, "wrappers": list(config.wrappers)}
    more |= {"time_limit": config.time_limit, "categories": list(getattr(networks.distribution, "categories", ()))}
    if not isinstance(networks, ActorCritic):
        more |= {"value_hidden": list(config.value_hidden), "activation": config.activation}
        more |= {"network": config.network, "observation_shape": list(shape)}
    return said | {name: value for name, value in more.items() if value}


@dataclass(frozen=True)
class SavedPolicy:
    """A trained policy: call it with an observation.

    Attributes:
        snapshot: its parameters and statistics.
        networks: of its shape, holding the same parameters.
        spec: the environment that it was trained on.
        backend: that the run stepped it with.
        meta: what the file says.
    """

    snapshot: Snapshot
    networks: Networks
    spec: EnvSpec
    backend: str
    meta: Mapping[str, Any]

    @functools.cached_property
    def _actors(self) -> Acting:
        return acting([self.snapshot], self.networks)

    def __call__(
        self, observation: Any, deterministic: bool = True, generator: np.random.Generator | None = None
    ) -> Floats:
        """An action for an observation, or actions for a batch of them.

        Args:
            observation: raw, flat [O] or [N, O]; others as `gymnasium.spaces.flatten` makes them.
            deterministic: the mode of the policy; else a sample.
            generator: source of samples; NumPy's default by default.

        Returns:
            [A] or [N, A] float32, not clipped; numbers of categories, from 0, where actions are discrete.

        Raises:
            UserError: the observation is of another size.
        """
        rows = np.asarray(observation, np.float32)
        if rows.shape[-1:] != (self.networks.observation_size,) or rows.ndim > 2:
            raise UserError(
                f"the observation has shape {rows.shape}, but the policy of {self.spec.name} takes "
                f"{self.networks.observation_size} numbers, or rows of them: flatten it "
                "with gymnasium.spaces.flatten(space, observation)"
            )
        actors, distribution = self._actors, self.networks.distribution
        batch = np.atleast_2d(rows)
        source = generator or np.random.default_rng(0 if deterministic else None)  # the mode takes no noise
        noise = distribution.noise(source, (len(batch),), actors.log_std)
        actions = distribution.act(actors.outputs(batch), np.float32(not deterministic) * noise)
        return actions if rows.ndim == 2 else actions[0]


def load(run: Path | str) -> SavedPolicy:
    """The policy of a finished run.

    Args:
        run: the run's folder, or its ``policy.safetensors``.

    Raises:
        UserError: there is none, or it is damaged or of another kind.
    """
    given = Path(run)
    path = given / POLICY if given.is_dir() or given.suffix != ".safetensors" else given
    if not path.exists():
        raise UserError(f"{run} holds no {POLICY}: give the folder of a run that was trained here, or train it again")
    arrays, meta = checkpoint.read(path)
    try:
        distribution = distribution_of(meta["action_size"], meta.get("categories", ()))
        size = meta["observation_size"]
        networks = make_networks(
            meta,
            shape=meta.get("observation_shape", (size,)),
            observation_size=size,
            action_size=meta["action_size"],
            distribution=distribution,
        )
        networks.flat[:] = arrays["parameters"] if "parameters" in arrays else flat_of(networks, arrays)
        shift, scale = arrays["observation_shift"], arrays["observation_scale"]
        snapshot = Snapshot(0, networks.flat, shift, scale, meta["clip"])
        spec = EnvSpec(
            meta["env"], meta.get("env_args", {}), tuple(meta.get("wrappers", ())), meta.get("time_limit", 0)
        )
        return SavedPolicy(snapshot, networks, spec, meta["backend"], meta)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no policy of a control task ({type(error).__name__}: {error}): give the folder of a run of "
            "'vaco train'"
        ) from error
