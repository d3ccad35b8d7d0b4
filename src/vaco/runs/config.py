"""The configuration of one run: frozen, validated, and hashed into the run's identity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from vaco.errors import UserError
from vaco.objectives.filters import FilterSettings
from vaco.objectives.table import Algorithm, parse
from vaco.runs.identity import RunId, config_hash, version_of
from vaco.runs.settings import Settings, setting
from vaco.runs.yaml_file import parse_yaml, read_yaml


@dataclass(frozen=True)
class RunConfig(Settings):
    """Everything that determines a run; equal configurations give equal bits on one machine.

    Raises:
        UserError: on construction, for a value out of range, with one sentence that says how to mend it.
    """

    env: str = setting("HalfCheetah-v5", "Gymnasium task")
    algorithm: str = setting("vaco", "alias, or ALIGN+FILTER")
    lag: int = setting(1, "capacity K of the policy buffer", ge=1)
    seed: int = setting(0, "seed of every random generator of the run", ge=0)
    steps: int = setting(1_000_000, "environment steps of training", ge=1)
    backend: Literal["batched", "gymnasium"] = setting("batched", "stepping of the environments")

    num_envs: int = setting(16, "actors (environments)", ge=1)
    phase_steps: int = setting(128, "steps of each actor per phase", ge=1)
    epochs: int = setting(10, "passes over a phase's data", ge=1)
    minibatch: int = setting(512, "samples per gradient step", ge=1)
    minibatches: Literal["auto", "transitions", "trajectories"] = setting(
        "auto", "shuffled transitions, or whole trajectories (always so for continuous alignment)"
    )
    learning_rate: float = setting(3e-4, "Adam's step size", gt=0)
    learning_rate_decay: bool = setting(True, "decay the step size linearly to zero")
    adam_epsilon: float = setting(1e-5, "Adam's ε", gt=0)
    max_grad_norm: float = setting(0.5, "global gradient-norm limit", gt=0)
    discount: float = setting(0.99, "γ", ge=0, le=1)
    trace_decay: float = setting(0.95, "λ", ge=0, le=1)
    rho_bar: float = setting(1.0, "V-trace truncation ρ̄ of the temporal-difference weight", gt=0)
    c_bar: float = setting(1.0, "V-trace truncation c̄ of the trace", gt=0)
    value_coefficient: float = setting(0.5, "weight of ½(V − v)²", ge=0)
    entropy_coefficient: float = setting(0.0, "weight of the entropy bonus", ge=0)
    advantage_normalisation: Literal["phase", "minibatch", "none", "scale", "learner"] = setting(
        "phase",
        "standardise advantages over the phase, the minibatch, or not; over the phase by its standard deviation alone "
        "(scale), or with moments weighted by ρ_T (learner)",
    )

    delta: float = setting(0.2, "δ, threshold of the TV filters on mean|·|", gt=0)
    trigger: Literal["minibatch", "phase"] = setting("minibatch", "batch on which the TV trigger is measured")
    clip: float = setting(0.2, "ε of the clips and of SPO", gt=0)
    truncation: float = setting(1.0, "ρ̄ of the truncated importance weight", gt=0)
    ratio_cap: float = setting(0.0, "C of the weight min(ρ, C) in the coefficient of the filters; 0 for none", ge=0)
    kl_coefficient: float = setting(1.0, "initial b of the KL penalty", gt=0)
    kl_adaptive: bool = setting(True, "adapt b after every phase")
    kl_target: float = setting(0.01, "target KL of the adaptive rule, from π_T or, under kl_total, from β; nats", gt=0)

    hidden: tuple[int, ...] = setting((64, 64), "widths of the tanh layers of actor and critic, each")
    initial_log_std: float = setting(0.0, "initial log σ of the Gaussian policy")
    normalise_observations: bool = setting(True, "standardise observations, part of the snapshot")
    normaliser_start: Literal["none", "random"] = setting(
        "none", "first statistics of observations: of no data, or of one phase of random actions, which is not counted"
    )
    normalise_rewards: bool = setting(True, "divide rewards by the standard deviation of discounted returns")
    observation_clip: float = setting(10.0, "limit of standardised observations", gt=0)
    reward_clip: float = setting(10.0, "limit of scaled rewards", gt=0)

    eval_points: int = setting(20, "evaluations after step 0, equally spaced", ge=1)
    eval_episodes: int = setting(5, "episodes per evaluation, stochastic and deterministic each", ge=1)

    def __post_init__(self) -> None:
        self._check_shape()
        if self.c_bar > self.rho_bar:
            raise UserError(f"c_bar is {self.c_bar}, but V-trace contracts only for c_bar <= rho_bar = {self.rho_bar}")
        if self.ratio_cap and self.parsed.filter.weight is None:
            raise UserError(
                f"ratio_cap is {self.ratio_cap}, but '{self.algorithm}' has no weight that it would truncate: leave it "
                "at 0 ('truncated' has the setting truncation)"
            )
        if self.normaliser_start == "random" and not self.normalise_observations:
            raise UserError(
                "normaliser_start is 'random', but observations are not normalised: leave it at 'none', or set "
                "normalise_observations"
            )
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
            delta=self.delta,
            clip=self.clip,
            truncation=self.truncation,
            ratio_cap=self.ratio_cap,
            kl_coefficient=self.kl_coefficient,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What names the run's folder."""
        return {name: getattr(self, name) for name in ("env", "algorithm", "lag", "seed", "steps")}

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


SETTINGS = RunConfig.fields()
"""Every setting, with its `default` and its `description`."""


def meanings() -> dict[str, str]:
    """What each setting means, in the order of Table 1."""
    return {name: str(spec.description) for name, spec in SETTINGS.items()}


def build(settings: Mapping[str, Any]) -> RunConfig:
    """Make a configuration from loosely typed settings.

    Args:
        settings: names of `RunConfig`'s fields with values as YAML or the command line gives them.

    Returns:
        The validated configuration.

    Raises:
        UserError: an unknown name, a value of the wrong type or out of range.
    """
    return RunConfig(**{str(name): value for name, value in settings.items()})


def parse_assignment(text: str) -> tuple[str, Any]:
    """Read ``key=value`` from the command line, the value as YAML.

    Raises:
        UserError: no equals sign, or a value that YAML cannot read.
    """
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UserError(f"'{text}' is no setting: write --set NAME=VALUE, such as --set epochs=3")
    return name, parse_yaml(value, f"the value of --set {name}")


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        UserError: the file is missing, unreadable, or no mapping.
    """
    settings = read_yaml(path)
    if not isinstance(settings, dict):
        raise UserError(f"the configuration {path} must be a mapping of settings to values, such as 'epochs: 3'")
    return settings


DEFAULTS = RunConfig().resolved()
"""Every setting's default, as `RunConfig.resolved` has it."""
