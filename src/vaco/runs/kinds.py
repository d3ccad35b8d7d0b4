"""What `verify` must know of a kind of run: what its configuration is, its rows, its path, and the source that made it.

Runs of MuJoCo policies are described here; those of language models, which share the run folder and the manifest, in
`vaco.lm.verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vaco.runs.config import build
from vaco.runs.folder import EVALS, MANIFEST, PHASES
from vaco.runs.provenance import training_hash
from vaco.runs.tiers import RunSpec

Manifest = Mapping[str, Any]
Rows = Mapping[str, NDArray[Any]]


class Asked(Protocol):
    """The configuration of a run, of any kind."""

    @property
    def hash(self) -> str:
        """Hash of the configuration."""

    def resolved(self) -> dict[str, Any]:
        """Every setting by name."""


class AnyTier(Protocol):
    """A tier of any kind."""

    @property
    def name(self) -> str:
        """The name of its file."""

    def plan(self) -> str:
        """The tier as one line of JSON."""


@dataclass(frozen=True)
class Kind:
    """One kind of run.

    Attributes:
        name: as messages say it.
        subject: the entry of a manifest's identity that no other kind has.
        must_be_one: packages of which runs that are compared must have one version.
        group: the name of those runs that must have one training code.
        source: hash of the training code that is installed here for a run; raises `UserError` if it is unknown here.
        place: folders below `runs/` from the outermost, as name and prefix, such as ("lag", "lag").
        title: what a folder is called for a value of the identity.
        incomplete: rows that should be there and are not, and values that no run writes, as path and sentence; raises
            `UserError` or `KeyError` if they cannot be checked.
        asked: the configurations that a tier asks for, by folder relative to `results/`.
    """

    name: str
    subject: str
    must_be_one: tuple[str, ...]
    group: Callable[[Manifest], str]
    source: Callable[[Manifest], str]
    place: tuple[tuple[str | None, str], ...]
    title: Callable[[object], str]
    incomplete: Callable[[Path, Manifest, Rows, Rows], Iterator[tuple[Path, str]]]
    asked: Callable[[Any], dict[str, Asked]]

    def misplaced(self, folder: Path, identity: Mapping[str, Any], runs: str) -> Iterator[tuple[str, str, str]]:
        """Where the path below the folder `runs` and a manifest contradict each other: name, path's and run's value."""
        parts, depth = folder.absolute().parts, len(self.place)
        if len(parts) <= depth or parts[-depth - 1] != runs:
            return
        for part, (name, prefix) in zip(parts[-depth:], self.place, strict=True):
            if name is None:
                continue
            found, expected = part.removeprefix(prefix), self.title(identity.get(name))
            # A variant's folder is named after its algorithm, a hyphen, and what is its own.
            variant = name == "algorithm" and found.startswith(f"{expected}-")
            if found != expected and not variant:
                yield name, found, str(identity.get(name))


class _Lazy:
    """The configuration of a specification, resolved when it is asked for: most runs of a large tier never are."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec

    @property
    def hash(self) -> str:
        return build(self._settings).hash

    def resolved(self) -> dict[str, Any]:
        return build(self._settings).resolved()

    @property
    def _settings(self) -> dict[str, Any]:
        spec = self._spec
        own = {"env": spec.env, "algorithm": spec.algorithm, "lag": spec.lag, "seed": spec.seed, "steps": spec.steps}
        return own | {"eval_points": spec.points, "eval_episodes": spec.episodes} | dict(spec.settings)


def _incomplete(folder: Path, manifest: Manifest, phases: Rows, evals: Rows) -> Iterator[tuple[Path, str]]:
    config = build(manifest["config"])
    steps, grid = phases["env_steps"], evals["grid_steps"]
    if steps.tolist() != [config.batch * phase for phase in range(1, config.phases + 1)]:
        yield folder / PHASES, f"has {len(steps)} rows that are not the {config.phases} phases of the run in order"
    if manifest["completed_steps"] != config.batch * config.phases:
        yield folder / MANIFEST, f"says {manifest['completed_steps']} steps, but {config.steps} were asked for"
    nominal = {round(point * config.steps / config.eval_points) for point in range(config.eval_points + 1)}
    inside = len(grid) > 0 and set(grid.tolist()) <= nominal and bool((np.diff(grid) > 0).all())
    if not inside or grid[-1] != config.steps or evals["env_steps"][0] != 0:
        yield folder / EVALS, "does not hold the evaluation points of the run from first to last"
    if not np.isfinite(evals["mean"]).all():
        yield folder / EVALS, "holds a return that is not finite"


CONTROL = Kind(
    name="MuJoCo policies",
    subject="env",
    must_be_one=("mujoco",),
    group=lambda manifest: str(manifest["identity"].get("algorithm")),
    source=lambda manifest: training_hash(manifest["identity"].get("algorithm")),
    # A study's runs carry their setting in the name of the folder, so the algorithm is left to the configuration.
    place=(("env", ""), (None, ""), ("lag", "lag"), ("seed", "seed")),
    title=str,
    incomplete=_incomplete,
    asked=lambda tier: {spec.folder: _Lazy(spec) for spec in tier.runs()},
)
