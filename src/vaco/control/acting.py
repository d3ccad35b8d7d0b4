"""The policies of all actors together, whatever their networks are made of."""

from __future__ import annotations

from collections.abc import Sequence

from vaco.control.distributions import distribution_of
from vaco.control.envs import VectorEnv
from vaco.control.networks import ActorCritic
from vaco.control.policy import Actors, Snapshot
from vaco.control.torch_networks import TorchActorCritic, TorchActors, make_networks
from vaco.runs.config import RunConfig

Networks = ActorCritic | TorchActorCritic
Acting = Actors | TorchActors


def networks_of(config: RunConfig, env: VectorEnv) -> Networks:
    """The networks that a run's settings ask for, for its environment, not initialised."""
    return make_networks(
        config.resolved(),
        shape=env.observation_shape,
        observation_size=env.observation_size,
        action_size=env.action_size,
        distribution=distribution_of(env.action_size, env.categories),
    )


def acting(snapshots: Sequence[Snapshot], template: Networks) -> Acting:
    """The snapshot of each actor, ready to act.

    Args:
        snapshots: one an actor; where all are the same one, it serves any number of observations.
        template: networks of their shape.
    """
    if isinstance(template, ActorCritic):
        return Actors(snapshots, template)
    return TorchActors(snapshots, template)
