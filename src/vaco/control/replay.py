"""Returns of policies outside training: a finished run's, or uniformly random actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vaco.control.envs import EnvSpec, VectorEnv, make_vector_env
from vaco.control.evaluate import evaluate, evaluate_random
from vaco.control.gaussian import Doubles
from vaco.control.saved import load
from vaco.runs.identity import EVALUATION_VERSION


def random_returns(spec: EnvSpec | str, episodes: int, seed: int) -> dict[str, Any]:
    """Returns of uniformly random actions, the zero of normalised scores.

    Args:
        spec: which environment.
        episodes: how many episodes, one environment each.
        seed: seed of resets and actions.

    Returns:
        A JSON-ready record with mean, standard deviation and every return.

    Raises:
        UserError: unknown task, or one whose actions have no bounds.
    """
    env = make_vector_env(spec, num_envs=episodes)
    return _record(env, "uniform random", evaluate_random(env, *_streams(seed, 1)), seed)


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
    policy = load(run)
    env = make_vector_env(policy.spec, num_envs=2 * episodes, backend=policy.backend)
    result = evaluate(env, policy.snapshot, policy.networks, *_streams(seed, 2))
    record = _record(env, f"policy of {run}", result.stochastic, seed)
    summary = result.summary()
    return record | {name: summary[name] for name in ("deterministic_mean", "deterministic_std")}


def _streams(seed: int, purpose: int) -> tuple[int, np.random.Generator]:
    """The seed of resets and the generator of actions, hashed: neighbouring seeds share nothing, nor do purposes."""
    resets, actions = np.random.SeedSequence((seed, 3, purpose)).spawn(2)
    return int(resets.generate_state(1)[0] >> 1), np.random.default_rng(actions)


def _record(env: VectorEnv, policy: str, returns: Doubles, seed: int) -> dict[str, Any]:
    unstable = {"unstable_episodes": len(env.unstable)} if env.unstable else {}
    return unstable | {
        "env": env.env_id,
        "policy": policy,
        "episodes": len(returns),
        "mean": float(returns.mean()),
        "std": float(returns.std()),
        "returns": returns.tolist(),
        "seed": seed,
        "evaluation_version": EVALUATION_VERSION,
    }
