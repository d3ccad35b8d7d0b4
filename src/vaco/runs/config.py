"""The configuration of one run: frozen, validated, and hashed into the run's identity."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator
from pydantic.dataclasses import dataclass

from vaco.errors import UserError
from vaco.lag import FILE, Schedule, Uniform, parse_schedule
from vaco.objectives.filters import FilterSettings
from vaco.objectives.own import own_settings
from vaco.objectives.table import Algorithm, parse
from vaco.runs import asynchrony
from vaco.runs.asynchrony import DEFAULT_SCHEDULE
from vaco.runs.identity import RunId, config_hash, version_of
from vaco.runs.settings import Settings, gathered, mapping_of, setting, settled
from vaco.yaml_file import parse_yaml, read_yaml

BATCHED_TASKS = frozenset(
    f"{name}-v5"
    for name in (
        *("Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum"),
        *("InvertedPendulum", "Pusher", "Reacher", "Swimmer", "Walker2d"),
    )
)
"""What the batched backend steps; `vaco.control`, which this room does not enter, holds the tasks themselves."""


@dataclass(frozen=True)
class RunConfig(Settings):
    """Everything that determines a run; equal configurations give equal bits on one machine.

    Raises:
        UserError: on construction, for a value out of range, with one sentence that says how to mend it.
    """

    env: str = setting("HalfCheetah-v5", "Gymnasium task, module:Task-v0, or module:callable that makes one")
    algorithm: str = setting("vaco", "alias, or ALIGN+FILTER")
    lag: int = setting(1, "capacity K of the policy buffer", ge=1)
    seed: int = setting(0, "seed of every random generator of the run", ge=0)
    steps: int = setting(1_000_000, "environment steps of training", ge=1)
    # "auto" is batched where that knows the task; recorded, and hashed, is what it chose.
    backend: Literal["auto", "batched", "gymnasium"] = setting("auto", "stepping of the environments")
    env_args: tuple[str, ...] = setting(
        (), "arguments of the environment, NAME=VALUE each, or a mapping of them", examples=[["gravity=9.81"]]
    )
    wrappers: tuple[str, ...] = setting(
        (),
        "wrappers around it, the innermost first: module:Class or a name of gymnasium.wrappers, and NAME=VALUE",
        examples=[["ClipAction"]],
    )
    time_limit: int = setting(0, "steps after which an episode is truncated; 0 for the task's own limit", ge=0)

    num_envs: int = setting(16, "actors (environments)", ge=1)
    phase_steps: int = setting(128, "steps of each actor per phase", ge=1)
    epochs: int = setting(10, "passes over a phase's data", ge=1)
    minibatch: int = setting(512, "samples per gradient step", ge=1)
    minibatches: Literal["auto", "transitions", "trajectories"] = setting(
        "auto", "shuffled transitions, or whole trajectories (always so for continuous alignment)"
    )
    learning_rate: float = setting(3e-4, "Adam's step size", gt=0)
    learning_rate_decay: bool = setting(True, "decay the step size linearly to zero")
    learning_rate_adaptive: bool = setting(
        False,
        "GePPO's rule: divide the step size by 1.03 after a phase whose forward lag exceeds ½ε/(1 + mean age), "
        "multiply it by 1.03 after one below half of that",
    )
    reuse: tuple[float, ...] = setting(
        (),
        "weights of the newest phases whose data an update takes together, the newest first; none for the newest alone",
        examples=[[4.0, 3.0, 2.0, 1.0]],
    )
    adam_epsilon: float = setting(1e-5, "Adam's ε", gt=0)
    max_grad_norm: float = setting(0.5, "global gradient-norm limit", gt=0)
    discount: float = setting(0.99, "γ", ge=0, le=1)
    trace_decay: float = setting(0.95, "λ", ge=0, le=1)
    rho_bar: float = setting(1.0, "V-trace truncation ρ̄ of the temporal-difference weight", gt=0)
    c_bar: float = setting(1.0, "V-trace truncation c̄ of the trace", gt=0)
    value_coefficient: float = setting(0.5, "weight of ½(V − v)²", ge=0)
    entropy_coefficient: float = setting(0.0, "weight of the entropy bonus", ge=0)
    entropy_reward: float = setting(
        0.0, "α of rewards r + α H(π_T(·|s)), r as scaled, from which advantages and value targets are estimated", ge=0
    )
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
    proximal_decay: float = setting(
        0.0,
        "decay, a gradient step, of the moving average of parameters that filters take for π_T; 0 for π_T itself",
        ge=0,
        lt=1,
    )
    kl_coefficient: float = setting(1.0, "initial b of the KL penalty", gt=0)
    kl_adaptive: bool = setting(True, "adapt b after every phase")
    kl_target: float = setting(0.01, "target KL of the adaptive rule, from π_T or, under kl_total, from β; nats", gt=0)

    hidden: tuple[int, ...] = setting((64, 64), "widths of the tanh layers of actor and critic, each")
    value_hidden: tuple[int, ...] = setting(
        (), "widths of the critic's layers; none for those of hidden", examples=[[64]]
    )
    activation: Literal["tanh", "relu", "elu", "gelu", "silu"] = setting("tanh", "between layers")
    network: str = setting(
        "",
        "other networks: 'cnn' for images, or module:factory called with the observation's shape and the number of "
        "outputs, whose torch.nn.Module gives outputs and values",
    )
    device: str = setting("cpu", "PyTorch device of other networks than the default's")
    initial_log_std: float = setting(0.0, "initial log σ of the Gaussian policy")
    normalise_observations: bool = setting(True, "standardise observations, part of the snapshot")
    normaliser_start: Literal["none", "random"] = setting(
        "none", "first statistics of observations: of no data, or of one phase of random actions, which is not counted"
    )
    normalise_rewards: bool = setting(True, "divide rewards by the standard deviation of discounted returns")
    observation_clip: float = setting(10.0, "limit of standardised observations", gt=0)
    reward_clip: float = setting(10.0, "limit of scaled rewards", gt=0)

    schedule: str = setting(
        DEFAULT_SCHEDULE,
        "who collects with which policy: uniform over the K newest; fifo:AGE, geometric:MEAN or "
        "straggler:SHARE:SLOW:FAST, of which lag is the capacity that they need; or file:PATH#HASH, recorded",
    )

    actors: int = setting(
        0, "processes that collect beside the learner; 0: it collects itself, with simulated lag", ge=0
    )
    engine: Literal["processes", "ray"] = setting("processes", "what runs them: the standard library, or Ray")
    segments: int = setting(
        0, "segments of a batch, which num_envs is shared out over; 0: as many as there are actors", ge=0
    )
    pull: Literal["segment", "step"] = setting("segment", "when an actor looks for newer weights: before each")
    queue: int = setting(1, "finished segments of one actor that may wait; with one more it waits itself", ge=1)
    broadcast: int = setting(1, "updates from one policy that actors can pull to the next", ge=1)
    max_staleness: int = setting(0, "age beyond which a segment is dropped; 0: none is", ge=0)
    slowness: tuple[float, ...] = setting(
        (), "how many times slower the first actors are made, one number each", examples=[[4.0]]
    )
    filter_options: str = setting("{}", "settings that only the filter has, as YAML on one line")
    align_options: str = setting("{}", "settings that only the alignment has, as YAML on one line")

    eval_points: int = setting(20, "evaluations after step 0, equally spaced", ge=1)
    eval_episodes: int = setting(5, "episodes per evaluation, stochastic and deterministic each", ge=1)

    @field_validator("env_args", mode="before")
    @classmethod
    def _one_spelling(cls, value: Any) -> Any:
        """Arguments in the order of their names, values as JSON: equal ones are one run."""
        if isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
            value = parse_arguments(value, "--env-arg")
        if not isinstance(value, Mapping):
            return value
        try:
            return tuple(f"{name}={json.dumps(given, allow_nan=False)}" for name, given in sorted(value.items()))
        except (TypeError, ValueError):
            raise UserError(
                f"env_args is {value}, but values must be numbers, words, lists or mappings of these: write "
                "--env-arg NAME=VALUE"
            ) from None

    def __post_init__(self) -> None:
        self._check_shape()
        asynchrony.settle(self)
        self._settle_environment()
        self.filter_own, self.align_own  # noqa: B018 (their checks)
        if self.c_bar > self.rho_bar:
            raise UserError(f"c_bar is {self.c_bar}, but V-trace contracts only for c_bar <= rho_bar = {self.rho_bar}")
        if self.ratio_cap and self.parsed.filter.weight is None:
            raise UserError(
                f"ratio_cap is {self.ratio_cap}, but '{self.algorithm}' has no weight that it would truncate: leave it "
                "at 0 ('truncated' has the setting truncation)"
            )
        if self.reuse and min(self.reuse) <= 0:
            raise UserError(
                f"reuse is {list(self.reuse)}, but it must list weights above 0, of the newest phase first, such as "
                "[4, 3, 2, 1]"
            )
        if self.normaliser_start == "random" and not self.normalise_observations:
            raise UserError(
                "normaliser_start is 'random', but observations are not normalised: leave it at 'none', or set "
                "normalise_observations"
            )
        if not self.hidden or min((*self.hidden, *self.value_hidden)) < 1:
            name, widths = (
                ("value_hidden", self.value_hidden) if min(self.hidden, default=0) > 0 else ("hidden", self.hidden)
            )
            raise UserError(f"{name} is {list(widths)}, but it must list widths of at least 1, such as [64, 64]")

    def _settle_environment(self) -> None:
        """Put what it chooses in place of 'auto': the two are one run, and a record says what was done."""
        if self.backend == "auto":
            changed = self.env_args or self.wrappers or self.time_limit
            chosen = "batched" if self.env in BATCHED_TASKS and not changed else "gymnasium"
            object.__setattr__(self, "backend", chosen)

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
    def batch_segments(self) -> int:
        """Segments of a batch of a run with actors."""
        return self.segments or self.actors

    @property
    def recorded(self) -> bool:
        """Whether the schedule is one that was recorded, a file of its own."""
        return self.schedule.startswith(f"{FILE}:")

    @property
    def ages(self) -> Schedule:
        """The schedule of ages, where it is none that was recorded."""
        return Uniform(self.lag) if self.schedule == DEFAULT_SCHEDULE else parse_schedule(self.schedule)

    @property
    def asynchrony(self) -> str:
        """What makes its data old, as part of a path: ``lag16``, ``fifo-8``."""
        return asynchrony.word(self.actors, self.schedule, self.lag)

    @property
    def environment_arguments(self) -> dict[str, Any]:
        """The keyword arguments of the environment."""
        return parse_arguments(self.env_args, "--env-arg")

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
            own=self.filter_own,
        )

    @property
    def filter_own(self) -> Any:
        """The settings that only this filter has, None if it has none."""
        rule = self.parsed.filter
        given = mapping_of("filter_options", self.filter_options)
        return own_settings(rule.settings, given, f"the filter '{rule.name}'") if rule.settings else None

    @property
    def align_own(self) -> Any:
        """The settings that only this alignment has, None if it has none."""
        row = self.parsed.align
        given = mapping_of("align_options", self.align_options)
        return own_settings(row.settings, given, f"the alignment '{row.name}'") if row.settings else None

    @property
    def functions(self) -> list[object]:
        """What the algorithm is made of: functions, and the dataclasses of their own settings."""
        row = self.parsed
        found = (row.filter.function, row.filter.statistic, row.filter.settings, row.align.function, row.align.settings)
        return [part for part in found if part is not None]

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
        if self.recorded:  # wherever the file is
            others["schedule"] = f"{FILE}:{self.schedule.split('#')[-1]}"
        others = settled(others, filter_options=self.filter_own, align_options=self.align_own)
        return config_hash("control", named, others, self.functions)

    @property
    def run_id(self) -> RunId:
        """What the run is: these settings, and the training version of its algorithm."""
        row = self.parsed
        return RunId(self.hash, version_of("control", (row.align.name, row.filter.name, row.pair)))

    @property
    def place(self) -> str:
        """The path of the run's folder below ``results/runs``: what it is in words, and its identity last."""
        task = self.env.replace("/", "_")  # one folder, also of ALE/Pong-v5
        return f"{task}/{self.parsed.pair}/{self.asynchrony}/seed{self.seed}/{self.run_id}"


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
    given = gathered(settings)
    return RunConfig(**given | asynchrony.schedule_of(given))


def parse_assignment(text: str, flag: str = "--set", example: str = "epochs=3") -> tuple[str, Any]:
    """Read ``key=value`` from the command line, the value as YAML.

    Args:
        text: what was written.
        flag: behind which flag, for the sentence.
        example: what would do there.

    Raises:
        UserError: no equals sign, or a value that YAML cannot read.
    """
    name, sign, value = text.partition("=")
    if not sign or not name:
        what = "setting" if flag == "--set" else "argument"
        raise UserError(f"'{text}' is no {what}: write {flag} NAME=VALUE, such as {flag} {example}")
    return name, parse_yaml(value, f"the value of {flag} {name}")


def parse_arguments(texts: Iterable[str], flag: str) -> dict[str, Any]:
    """The arguments of an environment or a wrapper, ``name=value`` each, values as YAML.

    Raises:
        UserError: one cannot be read, or is given twice.
    """
    given: dict[str, Any] = {}
    for text in texts:
        name, value = parse_assignment(text, flag, "gravity=9.81")
        if name in given:
            raise UserError(f"{name} is given twice behind {flag}: keep one of them")
        given[name] = value
    return given


def parse_assignments(texts: Iterable[str], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a command line: those of ``--set``, and those that have a flag of their own.

    Args:
        texts: ``key=value`` each.
        flags: setting → value of its flag, None where it was not given.

    Raises:
        UserError: one cannot be read, or a setting is given twice: no rule would say which of the two is meant.
    """
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    for text in texts:
        name, value = parse_assignment(text)
        if name in given:
            flag = {"env_args": "--env-arg", "wrappers": "--wrapper"}.get(name, f"--{name.replace('_', '-')}")
            first = flag if flags.get(name) is not None else f"--set {name}="
            raise UserError(f"{name} is given twice, as '{first}' and as '--set {text}': keep one of them")
        given[name] = value
    return given


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
