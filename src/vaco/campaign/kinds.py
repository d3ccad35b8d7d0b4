"""What is common to the kinds of run: how each is recognised, rebuilt from its manifest, and checked.

Runs of MuJoCo policies are described here; those of language models, which share the run folder, the manifest and the
archive, in `vaco.lm.kind`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vaco.runs.config import build
from vaco.runs.identity import KindName, RunId

Manifest = Mapping[str, Any]
Rows = Mapping[str, NDArray[Any]]


class Config(Protocol):
    """The configuration of a run, of any kind."""

    @property
    def hash(self) -> str:
        """Hash of the settings that differ from their defaults."""

    @property
    def run_id(self) -> RunId:
        """What the run is."""

    @property
    def place(self) -> str:
        """Path of its folder below `results/runs`."""

    def resolved(self) -> dict[str, Any]:
        """Every setting by name."""


class Planned(Protocol):
    """A run that a tier asks for."""

    @property
    def config(self) -> Config:
        """Its configuration."""


class AnyTier(Protocol):
    """A tier of any kind."""

    @property
    def name(self) -> str:
        """The name of its file."""

    def planned(self) -> Sequence[Planned]:
        """Its runs, each once, the most useful first."""

    def plan(self) -> str:
        """The tier as one line of JSON."""


@dataclass(frozen=True)
class Kind:
    """One kind of run.

    Attributes:
        name: as identities and archives say it.
        words: as messages say it.
        subject: the entry of a manifest's identity that no other kind has.
        must_be_one: packages of which runs that are compared must have one version.
        rebuild: makes a configuration of settings.
        incomplete: rows that should be there and are not, and values that no run writes, each as the table's name
            (or `manifest`) and a clause; raises `UserError` or `KeyError` if they cannot be checked.
    """

    name: KindName
    words: str
    subject: str
    must_be_one: tuple[str, ...]
    rebuild: Callable[[Mapping[str, Any]], Config]
    incomplete: Callable[[Manifest, Rows, Rows], Iterator[tuple[str, str]]]


def _incomplete(manifest: Manifest, phases: Rows, evals: Rows) -> Iterator[tuple[str, str]]:
    config = build(manifest["config"])
    steps, grid = phases["env_steps"], evals["grid_steps"]
    if steps.tolist() != [config.batch * phase for phase in range(1, config.phases + 1)]:
        yield "phases", f"has {len(steps)} rows that are not the {config.phases} phases of the run in order"
    if manifest["completed_steps"] != config.batch * config.phases:
        yield "manifest", f"says {manifest['completed_steps']} steps, but {config.steps} were asked for"
    nominal = {round(point * config.steps / config.eval_points) for point in range(config.eval_points + 1)}
    inside = len(grid) > 0 and set(grid.tolist()) <= nominal and bool((np.diff(grid) > 0).all())
    if not inside or grid[-1] != config.steps or evals["env_steps"][0] != 0:
        yield "evals", "does not hold the evaluation points of the run from first to last"
    if not np.isfinite(evals["mean"]).all():
        yield "evals", "holds a return that is not finite"


CONTROL = Kind(
    name="control",
    words="MuJoCo policies",
    subject="env",
    must_be_one=("mujoco",),
    rebuild=build,
    incomplete=_incomplete,
)
