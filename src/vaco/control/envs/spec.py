"""Which environment: a name, its arguments, its wrappers and its time limit; and how one is made of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium

from vaco.control.envs.instability import listen
from vaco.control.envs.named import attribute_of, module_of, wrapped
from vaco.control.envs.tasks import TASKS
from vaco.errors import UserError, nearest


@dataclass(frozen=True)
class EnvSpec:
    """An environment as a user describes it.

    Attributes:
        name: a Gymnasium name such as ``HalfCheetah-v5``; ``module:Name-v0``, which imports the module that registers
            it; or ``module:callable``, a class or function that returns an environment.
        arguments: keyword arguments of the environment.
        wrappers: as `named.wrapped` has them, the innermost first.
        time_limit: steps after which an episode is truncated; 0 leaves the task its own limit.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    time_limit: int = 0

    @property
    def as_registered(self) -> bool:
        """Whether nothing was changed about it."""
        return not (self.arguments or self.wrappers or self.time_limit)

    @property
    def saved_exactly(self) -> bool:
        """Whether its whole state is known, so that it can be saved and restored bit for bit."""
        return self.name in TASKS and not self.wrappers

    def make(self, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """Make one environment.

        The environment checker is left out: it tests the environment's code, not ours, on the first steps only.

        Args:
            render_mode: as Gymnasium has it.

        Raises:
            UserError: there is no such environment, or it refuses what it is given.
        """
        listen()
        rendered = {} if render_mode is None else {"render_mode": render_mode}
        env = self._factory_made(rendered) if self._is_factory() else self._registered(rendered)
        for text in self.wrappers:
            env = wrapped(env, text)
        return env

    def _is_factory(self) -> bool:
        """Whether the name is ``module:callable``, not ``module:Name-v0``; imports the module."""
        module, sign, name = self.name.partition(":")
        if not sign:
            return False
        module_of(module, f"the environment '{self.name}'")
        return name not in gymnasium.registry and name.replace(".", "").isidentifier()

    def _factory_made(self, rendered: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
        what = f"the environment '{self.name}'"
        module, _, name = self.name.partition(":")
        factory = attribute_of(module_of(module, what), name, what)
        try:
            env = factory(**{**self.arguments, **rendered})
        except Exception as error:
            raise self._refused(error) from error
        if not isinstance(env, gymnasium.Env):
            raise UserError(f"{what} makes no gymnasium.Env but {type(env).__name__}: return an environment")
        return gymnasium.wrappers.TimeLimit(env, self.time_limit) if self.time_limit else env

    def _registered(self, rendered: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
        if ":" not in self.name and self.name not in gymnasium.registry:
            # Without a close match Gymnasium's whole registry would be listed; our own are more use.
            close = difflib.get_close_matches(self.name, gymnasium.registry, n=1, cutoff=0.5)
            raise UserError(
                f"unknown environment '{self.name}', expected the full name of a Gymnasium task, version included: "
                f"{nearest(self.name, close or TASKS)}"
            )
        limit = self.time_limit or None
        try:
            return gymnasium.make(
                self.name, max_episode_steps=limit, disable_env_checker=True, **{**self.arguments, **rendered}
            )
        except Exception as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> UserError:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        given = f" with {dict(self.arguments)}" if self.arguments else ""
        return UserError(
            f"environment '{self.name}' cannot be made{given} ({reason}), where an installed Gymnasium task was "
            f"expected: install what it needs and give the arguments that it has, or choose one of "
            f"{', '.join(sorted(TASKS))}"
        )
