"""What one gradient step of a language-model run leaves to the next.

`rounds` advances it, `state` saves and restores it, `train` loops; none of them is imported here.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vaco.errors import UserError
from vaco.lag import PolicyBuffer
from vaco.lm import inputs
from vaco.lm.asynchronous import Source
from vaco.lm.config import LMConfig
from vaco.lm.engines import make_engine
from vaco.lm.evaluate import eval_problems
from vaco.lm.inputs import anchored
from vaco.lm.learner import Learner, Round
from vaco.lm.model import load_spec
from vaco.lm.parallel import ALONE, Group
from vaco.lm.task import make_task
from vaco.lm.warm import load_warm_start, warm_start
from vaco.lm.weights import Arrays, Lazy, parameters, trained
from vaco.runs import atomic, checkpoint

GENERATORS = ("problems", "noise", "order", "assignment")

Row = dict[str, float]


@dataclass
class Clock:
    """Training seconds so far, evaluations not counted, and those of the current step by part."""

    total: float = 0.0
    generate: float = 0.0
    recompute: float = 0.0
    update: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """A behaviour policy: the update after which it was taken, and its weights or their file (None: the model's)."""

    version: int
    weights: Arrays | Path | None

    @property
    def arrays(self) -> Arrays:
        """Its weights by name.

        Raises:
            UserError: its file is missing or damaged.
        """
        if isinstance(self.weights, Path):
            return checkpoint.read(self.weights)[0]
        return self.weights or {}


class Run:
    """Everything that one gradient step leaves to the next."""

    def __init__(
        self,
        config: LMConfig,
        warm: Path | None = None,
        quiet: bool = True,
        base: Path | None = None,
        policies: Path | None = None,
        group: Group = ALONE,
    ) -> None:
        """Build the run at its very beginning.

        Args:
            config: the configuration.
            warm: file with the warm start's weights; None makes them here.
            quiet: show no progress of the warm start.
            base: the folder that relative paths of the settings start from; by default the working directory.
            policies: the folder for the policies of the buffer if K > 1; None keeps them in memory.
            group: the processes that share the work.

        Raises:
            UserError: unknown task or model, or a warm start of other settings.
        """
        self.config, self.update, self.clock = config, 0, Clock()
        model, options = anchored(config, base or Path())
        self.task = make_task(config.task, options)
        if config.problems == "epochs" and self.task.size("train") is None:
            raise UserError(
                f"problems is 'epochs', but the task '{config.task}' has no end of problems: set it to 'independent'"
            )
        spec = config.spec(model)
        self.loaded = load_spec(spec)
        self.model: Any = self.loaded.model
        self.eval_set = eval_problems(self.task, config.eval_problems)
        self.facts: dict[str, float] = {}
        if config.warm_target > 0 and warm is not None:
            self.facts = load_warm_start(warm, config, self.loaded)
        elif config.warm_target > 0:
            self.facts = warm_start(config, self.loaded, self.task, quiet=quiet)
        self.group, self.policies = group, policies
        group.take_from_first(value.data for _, value in trained(self.model))
        # π_ref of TBA
        self.reference = parameters(self.model) if config.parsed.regression == "tba" else {}
        self.inputs = {**inputs.of_problems(self.task), **inputs.of_model(model)}
        self.inputs |= inputs.of_weights(Lazy(dict(trained(self.model)))) if config.warm_target > 0 else {}
        self.spec = spec
        self.engine = make_engine(config, self.loaded, spec)
        self.learner = Learner(config, self.model, group)
        seeds = np.random.SeedSequence(config.seed).spawn(len(GENERATORS))
        self.generators = {n: np.random.default_rng(s) for n, s in zip(GENERATORS, seeds, strict=True)}
        self.buffer: PolicyBuffer[Snapshot] = PolicyBuffer(config.lag)
        self.source: Source | None = None  # of rounds that are not generated in turn
        self.round: Round | None = None
        self.proximal: Tensor | None = None
        self.warned = False  # of cut responses
        self.rows: list[Row] = []
        self.evals: list[Row] = []

    def kept(self, version: int) -> Path | None:
        """The file of a policy of the buffer; None where they are in memory."""
        return self.policies and self.policies / f"policy-{version:012d}.safetensors"

    def keep(self) -> Arrays | Path:
        """Keep the current policy for later generation: in a file if there is a folder for it, else a copy.

        Raises:
            UserError: the file cannot be written.
        """
        path = self.kept(self.update)
        if path is None:
            return parameters(self.model)
        if self.group.first:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise atomic.write_error(path, error) from error
            with atomic.writing(path) as stream:
                checkpoint.write(stream, Lazy(dict(trained(self.model))), {"version": self.update})
        self.group.agree(False)  # the others read it, so they wait for it
        return path

    def forget(self, versions: set[int]) -> None:
        """Delete the files of policies of which neither the buffer nor a checkpoint speaks.

        Args:
            versions: those that checkpoints speak of.
        """
        needed = {self.kept(version) for version in versions | {snapshot.version for snapshot in self.buffer}}
        for path in self.policies.glob("policy-*.safetensors") if self.policies and self.group.first else ():
            if path not in needed:
                with suppress(OSError):
                    path.unlink()
