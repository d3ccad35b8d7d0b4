"""Vector environments: one interface, two backends.

`gymnasium` is the reference: genuine environments in a loop. `batched`, the default, steps many MjData of the same
model directly and does the rest for the whole batch at once; the tests hold it to the reference bit for bit. The
interface, its autoreset rule and its reasons are in `VectorEnv`.
"""

from __future__ import annotations

import difflib
from typing import Any

import gymnasium

from vaco.control.envs.base import VectorEnv, VectorStep, make_gymnasium
from vaco.control.envs.batched import BatchedVectorEnv
from vaco.control.envs.gymnasium_backend import GymnasiumVectorEnv
from vaco.control.envs.tasks import TASKS
from vaco.errors import UserError, nearest

__all__ = ["BACKENDS", "TASKS", "VectorEnv", "VectorStep", "make_vector_env"]

BACKENDS: dict[str, type[BatchedVectorEnv] | type[GymnasiumVectorEnv]] = {
    "batched": BatchedVectorEnv,
    "gymnasium": GymnasiumVectorEnv,
}


def make_vector_env(env_id: str, *, num_envs: int, backend: str = "batched") -> VectorEnv:
    """Make a vector environment; it must be reset, or given a state, before it is stepped.

    Args:
        env_id: a Gymnasium name such as ``HalfCheetah-v5``. The batched backend knows the eight of `TASKS`; the
            gymnasium backend takes any task with one-dimensional Box observations and actions.
        num_envs: how many environments step together, at least 1.
        backend: a name of `BACKENDS`.

    Returns:
        The environment, on the chosen backend.

    Raises:
        UserError: for an unknown task or backend, a task of another kind of spaces, or `num_envs` below 1.
    """
    if backend not in BACKENDS:
        raise UserError(
            f"unknown backend '{backend}', expected one of {', '.join(BACKENDS)}: {nearest(backend, BACKENDS)}"
        )
    if num_envs < 1:
        raise UserError(f"num_envs is {num_envs}, but at least 1 environment was expected: raise it to 1 or more")
    reference = _make_reference(env_id)
    _check_spaces(env_id, reference)
    if backend == "batched" and env_id not in TASKS:
        reference.close()
        raise UserError(
            f"the batched backend does not know {env_id}, only {', '.join(sorted(TASKS))}: choose one of those"
        )
    return BACKENDS[backend](env_id, num_envs, reference)


def _make_reference(env_id: str) -> gymnasium.Env[Any, Any]:
    """Make the first environment, turning every reason for which Gymnasium may refuse into a sentence."""
    if ":" not in env_id and env_id not in gymnasium.registry:
        # Without a close match Gymnasium's whole registry would be listed; our eight are more use.
        close = difflib.get_close_matches(env_id, gymnasium.registry, n=1, cutoff=0.5)
        raise UserError(
            f"unknown environment '{env_id}', expected the full name of a Gymnasium task, version included: "
            f"{nearest(env_id, close or TASKS)}"
        )
    try:
        return make_gymnasium(env_id)
    except (gymnasium.error.Error, ImportError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"environment '{env_id}' cannot be made ({reason}), where an installed Gymnasium task was expected: "
            f"install what it needs, or choose one of {', '.join(sorted(TASKS))}"
        ) from error


def _check_spaces(env_id: str, reference: gymnasium.Env[Any, Any]) -> None:
    """Refuse spaces that the Gaussian policy and its networks cannot serve."""
    for name, space in (("action", reference.action_space), ("observation", reference.observation_space)):
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            reference.close()
            raise UserError(
                f"{env_id} has the {name} space {space}, but a one-dimensional Box was expected: "
                "choose a continuous control task, such as HalfCheetah-v5"
            )
