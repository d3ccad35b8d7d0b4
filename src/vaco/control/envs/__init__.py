"""Vector environments: one interface, two backends.

`gymnasium` is the reference and serves any environment: genuine ones in a loop. `batched`, for the MuJoCo tasks that it
knows, steps many MjData of the same model directly and does the rest for the whole batch at once; the tests hold it to
the reference bit for bit. Either can be shared out over processes (`sharded`), with the same bits. The interface, its
autoreset rule and its reasons are in `VectorEnv`.
"""

from __future__ import annotations

from vaco.control.envs.base import VectorEnv, VectorStep
from vaco.control.envs.batched import BatchedVectorEnv
from vaco.control.envs.gymnasium_backend import GymnasiumVectorEnv
from vaco.control.envs.sharded import ShardedVectorEnv
from vaco.control.envs.spec import EnvSpec
from vaco.control.envs.tasks import TASKS
from vaco.errors import UserError, nearest
from vaco.runs.config import RunConfig

__all__ = ["BACKENDS", "TASKS", "EnvSpec", "VectorEnv", "VectorStep", "make_vector_env", "spec_of"]

BACKENDS: dict[str, type[BatchedVectorEnv] | type[GymnasiumVectorEnv]] = {
    "batched": BatchedVectorEnv,
    "gymnasium": GymnasiumVectorEnv,
}


def spec_of(config: RunConfig) -> EnvSpec:
    """The environment of a run."""
    return EnvSpec(config.env, config.environment_arguments, config.wrappers, config.time_limit)


def make_vector_env(env: str | EnvSpec, *, num_envs: int, backend: str = "auto", processes: int = 1) -> VectorEnv:
    """Make a vector environment; it must be reset, or given a state, before it is stepped.

    Args:
        env: the name of an environment, or all that describes one. The batched backend knows those of `TASKS`, as they
            are registered; the gymnasium backend takes any.
        num_envs: how many environments step together, at least 1.
        backend: a name of `BACKENDS`, or "auto": batched where it knows the environment.
        processes: how many step them, this one where it is 1; no more than there are environments.

    Returns:
        The environment, on the chosen backend.

    Raises:
        UserError: for an unknown task or backend, a task of another kind of spaces, or a number below 1.
    """
    spec = EnvSpec(env) if isinstance(env, str) else env
    known = spec.name in TASKS and spec.as_registered
    if backend == "auto":
        backend = "batched" if known else "gymnasium"
    if backend not in BACKENDS:
        raise UserError(
            f"unknown backend '{backend}', expected one of auto, {', '.join(BACKENDS)}: {nearest(backend, BACKENDS)}"
        )
    if num_envs < 1:
        raise UserError(f"num_envs is {num_envs}, but at least 1 environment was expected: raise it to 1 or more")
    if processes < 1:
        raise UserError(f"env-processes is {processes}, but at least 1 process must step the environments")
    reference = spec.make()
    try:
        if backend == "batched" and not known:
            changed = " with arguments, wrappers or a time limit of its own" if spec.name in TASKS else ""
            raise UserError(
                f"the batched backend does not know {spec.name}{changed}, only {', '.join(sorted(TASKS))} as they are "
                "registered: leave the backend at 'auto'"
            )
        kind, processes = BACKENDS[backend], min(processes, num_envs)
        if processes == 1:
            return kind(spec, num_envs, reference)
        return ShardedVectorEnv(spec, num_envs, reference, kind=kind, processes=processes)
    except BaseException:
        reference.close()
        raise
