"""Returns of policies outside training: a finished run's, or uniformly random actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vaco.control.envs import make_vector_env
from vaco.control.evaluate import evaluate, evaluate_random
from vaco.control.networks import ActorCritic
from vaco.control.policy import Doubles, Snapshot
from vaco.errors import UserError
from vaco.runs import checkpoint
from vaco.runs.folder import POLICY


def random_returns(env_id: str, episodes: int, seed: int) -> dict[str, Any]:
    """Returns of uniformly random actions, the zero of normalised scores.

    Args:
        env_id: Gymnasium task.
        episodes: how many episodes, one environment each.
        seed: seed of resets and actions.

    Returns:
        A JSON-ready record with mean, standard deviation and every return.

    Raises:
        UserError: unknown task.
    """
    env = make_vector_env(env_id, num_envs=episodes)
    returns = evaluate_random(env, seed, _noise(seed))
    return _record(env_id, "uniform random", returns, seed)


def policy_returns(run: Path, episodes: int, seed: int) -> dict[str, Any]:
    """Returns of a finished run's policy, actions sampled.

    Args:
        run: the run's folder.
        episodes: how many episodes.
        seed: seed of resets and actions.

    Returns:
        A JSON-ready record; `deterministic_mean` and `deterministic_std` describe the same policy without noise.

    Raises:
        UserError: the folder holds no readable policy.
    """
    path = run / POLICY
    if not path.exists():
        raise UserError(f"{run} holds no {POLICY}: give the folder of a run that was trained here, or train it again")
    arrays, meta = checkpoint.read(path)
    networks = ActorCritic(meta["observation_size"], meta["action_size"], meta["hidden"])
    snapshot = Snapshot(0, arrays["parameters"], arrays["observation_shift"], arrays["observation_scale"], meta["clip"])
    env = make_vector_env(meta["env"], num_envs=2 * episodes, backend=meta["backend"])
    result = evaluate(env, snapshot, networks, seed, _noise(seed))
    record = _record(meta["env"], f"policy of {run}", result.stochastic, seed)
    summary = result.summary()
    return record | {name: summary[name] for name in ("deterministic_mean", "deterministic_std")}


def _noise(seed: int) -> np.random.Generator:
    """A generator for actions, on another stream than the resets, which start from the bare seed."""
    return np.random.default_rng(np.random.SeedSequence((seed, 3)))


def _record(env_id: str, policy: str, returns: Doubles, seed: int) -> dict[str, Any]:
    return {
        "env": env_id,
        "policy": policy,
        "episodes": len(returns),
        "mean": float(returns.mean()),
        "std": float(returns.std()),
        "returns": returns.tolist(),
        "seed": seed,
    }
