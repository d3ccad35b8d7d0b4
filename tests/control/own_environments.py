"""Environments of somebody else's, as a user would bring them: by name, by module and by factory."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Corridor(gymnasium.Env[Any, Any]):
    """Walk along a line; the reward is the distance to the goal, the observation a nested dictionary."""

    def __init__(self, length: float = 1.0, goal: float = 0.5, broken: str = "", bounded: bool = True) -> None:
        self.length, self.goal, self.broken, self.steps = length, goal, broken, 0
        box = spaces.Box(-length, length, (1,), np.float32)
        self.observation_space = spaces.Dict({"where": spaces.Dict({"x": box}), "side": spaces.Discrete(2)})
        limit = 1.0 if bounded else np.inf
        self.action_space = spaces.Dict({"move": spaces.Box(-limit, limit, (1, 1), np.float32)})

    def _seen(self) -> Any:
        if self.broken == "shape" and self.steps == 3:
            return {"where": {"x": np.zeros(2, np.float32)}, "side": 0}
        x = np.nan if (self.broken, self.steps) == ("nan", 3) or (self.broken == "pushed" and self.pushed) else self.x
        return {"where": {"x": np.array([x], np.float32)}, "side": int(self.x > self.goal)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.steps = float(self.np_random.uniform(-self.length, self.length)), 0
        self.pushed = False
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action["move"].shape == (1, 1) and action["move"].dtype == np.float32
        self.steps, self.pushed = self.steps + 1, bool(action["move"][0, 0] == 1.0)
        self.x = float(np.clip(self.x + 0.1 * action["move"][0, 0], -self.length, self.length))
        return self._seen(), -abs(self.x - self.goal), False, self.steps >= 20 and self.broken != "endless", {}


class Choice(gymnasium.Env[Any, Any]):
    """Several discrete components at once; the reward counts those that match the observation."""

    observation_space = spaces.MultiDiscrete([3, 2])
    action_space = spaces.Tuple((spaces.Discrete(3, start=5), spaces.MultiBinary(1)))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._draw(), {}

    def _draw(self) -> Any:
        self.wanted = self.np_random.integers(0, [3, 2])
        return self.wanted

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        reward = float(action[0] - 5 == self.wanted[0]) + float(action[1][0] == self.wanted[1])
        self.steps += 1
        return self._draw(), reward, False, self.steps >= 10, {}


class Rewarded(gymnasium.RewardWrapper[Any, Any]):
    """Multiplies rewards."""

    def __init__(self, env: gymnasium.Env[Any, Any], factor: float = 1.0) -> None:
        super().__init__(env)
        self.factor = factor

    def reward(self, reward: Any) -> Any:
        return self.factor * float(reward)


class Mixed(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Changes the action space into one that mixes kinds."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = spaces.Tuple((env.action_space, spaces.Discrete(2)))


class Boundless(Corridor):
    """Its choice has no end."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = spaces.Box(0, 10, (1,), np.int64)


class Painted(gymnasium.Env[Any, Any]):
    """Something that can be drawn without any library: a bar as long as its state."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012 (as Gymnasium has it)
    observation_space = spaces.Box(-np.inf, np.inf, (2,))
    action_space = spaces.Discrete(3)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode, self.acted = render_mode, []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.x, self.steps = float(self.np_random.uniform(0, 5)), 0
        return np.array([self.x, 1.0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.x, self.steps = self.x + float(action), self.steps + 1
        return np.array([self.x, 1.0], np.float32), float(action), False, self.steps >= 30, {}

    def render(self) -> Any:
        picture = np.zeros((21, 41, 3), np.uint8)
        picture[:, : int(self.x) % 41] = 255
        return picture


def corridor(**arguments: Any) -> gymnasium.Env[Any, Any]:
    return Corridor(**arguments)


def nothing() -> int:
    return 3


gymnasium.register("OwnCorridor-v0", Corridor, max_episode_steps=15)
gymnasium.register("Painted-v0", Painted)
