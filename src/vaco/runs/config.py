"""The configuration of one run: frozen, validated, and hashed into the run's identity."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vaco.errors import UserError, nearest
from vaco.objectives.filters import FilterSettings
from vaco.objectives.table import Algorithm, parse
from vaco.runs.identity import RunId, config_hash, version_of


def _setting(default: Any, meaning: str, **metadata: Any) -> Any:
    """A field with its default and the sentence that Table 1 and the help print of it."""
    return field(default=default, metadata={"meaning": meaning, **metadata})


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run; equal configurations give equal bits on one machine.

    Raises:
        UserError: on construction, for a value out of range, with one sentence that says how to mend it.
    """

    env: str = _setting("HalfCheetah-v5", "Gymnasium task")
    algorithm: str = _setting("vaco", "alias, or ALIGN+FILTER")
    lag: int = _setting(1, "capacity K of the policy buffer", low=1)
    seed: int = _setting(0, "seed of every random generator of the run", low=0)
    steps: int = _setting(1_000_000, "environment steps of training", low=1)
    backend: str = _setting("batched", "stepping of the environments", choices=("batched", "gymnasium"))

    num_envs: int = _setting(16, "actors (environments)", low=1)
    phase_steps: int = _setting(128, "steps of each actor per phase", low=1)
    epochs: int = _setting(10, "passes over a phase's data", low=1)
    minibatch: int = _setting(512, "samples per gradient step", low=1)
    minibatches: str = _setting(
        "auto",
        "shuffled transitions, or whole trajectories (always so for continuous alignment)",
        choices=("auto", "transitions", "trajectories"),
    )
    learning_rate: float = _setting(3e-4, "Adam's step size", above=0)
    learning_rate_decay: bool = _setting(True, "decay the step size linearly to zero")
    adam_epsilon: float = _setting(1e-5, "Adam's ε", above=0)
    max_grad_norm: float = _setting(0.5, "global gradient-norm limit", above=0)
    discount: float = _setting(0.99, "γ", low=0, high=1)
    trace_decay: float = _setting(0.95, "λ", low=0, high=1)
    rho_bar: float = _setting(1.0, "V-trace truncation ρ̄ of the temporal-difference weight", above=0)
    c_bar: float = _setting(1.0, "V-trace truncation c̄ of the trace", above=0)
    value_coefficient: float = _setting(0.5, "weight of ½(V − v)²", low=0)
    entropy_coefficient: float = _setting(0.0, "weight of the entropy bonus", low=0)
    advantage_normalisation: str = _setting(
        "phase", "standardise advantages over the phase, the minibatch, or not", choices=("phase", "minibatch", "none")
    )

    delta: float = _setting(0.2, "δ, threshold of the TV filters on mean|·|", above=0)
    trigger: str = _setting("minibatch", "batch on which the TV trigger is measured", choices=("minibatch", "phase"))
    clip: float = _setting(0.2, "ε of the clips and of SPO", above=0)
    truncation: float = _setting(1.0, "ρ̄ of the truncated importance weight", above=0)
    kl_coefficient: float = _setting(1.0, "initial b of the KL penalty", above=0)
    kl_adaptive: bool = _setting(True, "adapt b after every phase")
    kl_target: float = _setting(0.01, "target KL(π_T‖π) of the adaptive rule, nats", above=0)

    hidden: tuple[int, ...] = _setting((64, 64), "widths of the tanh layers of actor and critic, each")
    initial_log_std: float = _setting(0.0, "initial log σ of the Gaussian policy")
    normalise_observations: bool = _setting(True, "standardise observations, part of the snapshot")
    normalise_rewards: bool = _setting(True, "divide rewards by the standard deviation of discounted returns")
    observation_clip: float = _setting(10.0, "limit of standardised observations", above=0)
    reward_clip: float = _setting(10.0, "limit of scaled rewards", above=0)

    eval_points: int = _setting(20, "evaluations after step 0, equally spaced", low=1)
    eval_episodes: int = _setting(5, "episodes per evaluation, stochastic and deterministic each", low=1)

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            _check_range(spec, getattr(self, spec.name))
        self._check_shape()
        if self.c_bar > self.rho_bar:
            raise UserError(f"c_bar is {self.c_bar}, but V-trace contracts only for c_bar <= rho_bar = {self.rho_bar}")
        if not self.hidden or min(self.hidden) < 1:
            raise UserError(f"hidden is {list(self.hidden)}, but it must list widths of at least 1, such as [64, 64]")

    def _check_shape(self) -> None:
        batch = self.batch
        if self.steps < batch:
            raise UserError(
                f"steps is {self.steps}, but one phase alone takes {self.num_envs} x {self.phase_steps} = {batch}: "
                f"ask for at least {batch} steps"
            )
        if self.minibatch > batch:
            raise UserError(f"minibatch is {self.minibatch}, larger than the batch of {batch}: use at most {batch}")
        if batch % self.minibatch:
            raise UserError(f"minibatch is {self.minibatch}, which does not divide the batch of {batch}")
        if self.parsed.align.every_update and self.minibatches == "transitions":
            raise UserError(
                f"minibatches is 'transitions', but '{self.algorithm}' realigns at every update and needs whole "
                "trajectories: use 'auto'"
            )
        if self.whole_trajectories and self.minibatch % self.phase_steps:
            raise UserError(
                f"minibatch is {self.minibatch}, but whole trajectories need a multiple of phase_steps = "
                f"{self.phase_steps}"
            )

    @property
    def batch(self) -> int:
        """Samples of one phase."""
        return self.num_envs * self.phase_steps

    @property
    def phases(self) -> int:
        """Number of phases: the steps, rounded down to whole phases."""
        return self.steps // self.batch

    @property
    def observation_limit(self) -> float:
        """Limit of the policy's inputs: none (the largest float32) where observations are not standardised."""
        return self.observation_clip if self.normalise_observations else 3.4e38

    @property
    def parsed(self) -> Algorithm:
        """The algorithm's row of the table."""
        return parse(self.algorithm)

    @property
    def whole_trajectories(self) -> bool:
        """Whether minibatches are whole trajectories rather than shuffled transitions."""
        return self.parsed.align.every_update or self.minibatches == "trajectories"

    @property
    def filter_settings(self) -> FilterSettings:
        """The numbers the filter sees in the first phase."""
        return FilterSettings(
            delta=self.delta, clip=self.clip, truncation=self.truncation, kl_coefficient=self.kl_coefficient
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What names the run's folder."""
        return {name: getattr(self, name) for name in ("env", "algorithm", "lag", "seed", "steps")}

    def resolved(self) -> dict[str, Any]:
        """Every setting as JSON-ready values."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that identify the settings, see `identity.config_hash`."""
        row = self.parsed
        named = self.identity | {"algorithm": row.pair}
        given = {name: value for name, value in self.resolved().items() if name not in named}
        others = {name: value for name, value in given.items() if value != DEFAULTS[name]}
        rules = [rule for rule in (row.filter.function, row.filter.statistic) if rule is not None]
        return config_hash("control", named, others, rules)

    @property
    def run_id(self) -> RunId:
        """What the run is: these settings, and the training version of its algorithm."""
        row = self.parsed
        return RunId(self.hash, version_of("control", (row.align.name, row.filter.name, row.pair)))

    @property
    def place(self) -> str:
        """The path of the run's folder below ``results/runs``: what it is in words, and its identity last."""
        return f"{self.env}/{self.parsed.pair}/lag{self.lag}/seed{self.seed}/{self.run_id}"


SETTINGS = {spec.name: spec for spec in dataclasses.fields(RunConfig)}


def meanings() -> dict[str, str]:
    """What each setting means, in the order of Table 1."""
    return {name: spec.metadata["meaning"] for name, spec in SETTINGS.items()}


def build(settings: Mapping[str, Any]) -> RunConfig:
    """Make a configuration from loosely typed settings.

    Args:
        settings: names of `RunConfig`'s fields with values as YAML or the command line gives them.

    Returns:
        The validated configuration.

    Raises:
        UserError: an unknown name, a value of the wrong type or out of range.
    """
    typed = {}
    for name, value in settings.items():
        if name not in SETTINGS:
            raise UserError(f"there is no setting '{name}': {nearest(str(name), SETTINGS)}")
        typed[name] = _coerce(SETTINGS[name], value)
    return RunConfig(**typed)


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read ``key=value`` from the command line, the value as YAML.

    Raises:
        UserError: no equals sign, or a value that YAML cannot read.
    """
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UserError(f"'{text}' is no setting: write --set NAME=VALUE, such as --set epochs=3")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"the value of '{text}' cannot be read: write a number, true, false or a word") from None


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        UserError: the file is missing, unreadable, or no mapping.
    """
    try:
        settings = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"the configuration {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the configuration {path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise UserError(f"the configuration {path} must be a mapping of settings to values, such as 'epochs: 3'")
    return settings


def _coerce(spec: dataclasses.Field[Any], value: Any) -> Any:
    """Convert a value to the type of the field's default, refusing what would lose meaning."""
    kind = type(spec.default)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer():
        return int(value)
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 3e-4 as a word
        except (TypeError, ValueError):
            pass
    if kind is str and isinstance(value, str):
        return value
    if kind is tuple and isinstance(value, list | tuple) and all(type(width) is int for width in value):
        return tuple(value)
    expected = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", tuple: "a list"}
    raise UserError(f"{spec.name} is {value!r}, but it must be {expected[kind]} such as {spec.default!r}")


def _check_range(spec: dataclasses.Field[Any], value: Any) -> None:
    """Check a value against the bounds in its field's metadata."""
    rules = spec.metadata
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{spec.name} is {value}, but it must be a finite number such as {spec.default}")
    if "low" in rules and value < rules["low"]:
        raise UserError(f"{spec.name} is {value}, but it must be at least {rules['low']} (default {spec.default})")
    if "above" in rules and value <= rules["above"]:
        raise UserError(f"{spec.name} is {value}, but it must exceed {rules['above']} (default {spec.default})")
    if "high" in rules and value > rules["high"]:
        raise UserError(f"{spec.name} is {value}, but it must be at most {rules['high']} (default {spec.default})")
    if "choices" in rules and value not in rules["choices"]:
        raise UserError(f"{spec.name} is '{value}': {nearest(str(value), rules['choices'])}")


DEFAULTS = RunConfig().resolved()
"""Every setting's default, as `RunConfig.resolved` has it."""
