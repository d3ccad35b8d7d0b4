"""The two kinds of run, of a MuJoCo policy and of a language model, where those who check runs must tell them apart.

They share the run folder and the manifest. They differ in what a configuration is, which rows a finished run has, what
its path says and which source made it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vaco.runs import tables
from vaco.runs.config import build
from vaco.runs.folder import EVALS, MANIFEST, PHASES
from vaco.runs.provenance import language_hash, training_hash
from vaco.runs.tiers import RunSpec, Tier


class Asked(Protocol):
    """The configuration of a run, of either kind."""

    @property
    def hash(self) -> str:
        """Hash of the configuration."""

    def resolved(self) -> dict[str, Any]:
        """Every setting by name."""


def is_language(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is that of a language-model run: it has a task instead of an environment."""
    return "task" in manifest["identity"]


def group_of(manifest: Mapping[str, Any]) -> str:
    """The name of those runs that must have one training code; each MuJoCo row has a code of its own."""
    return "language models" if is_language(manifest) else str(manifest["identity"].get("algorithm"))


def source_of(manifest: Mapping[str, Any]) -> str:
    """Hash of the training code that is installed here for such a run.

    Raises:
        UserError: the algorithm is unknown here.
    """
    return language_hash() if is_language(manifest) else training_hash(manifest["identity"].get("algorithm"))


def place_of(folder: Path, manifest: Mapping[str, Any], runs: str) -> dict[str, tuple[str, str]]:
    """What the path below the folder `runs` says of a run, beside what its manifest says; empty if it is elsewhere."""
    parts, identity = folder.absolute().parts, manifest["identity"]
    if is_language(manifest):
        if len(parts) < 6 or parts[-6] != runs:
            return {}
        task = str(identity.get("task")).replace(":", "-").replace("/", "-")
        return {
            "task": (parts[-5], task),
            "algorithm": (parts[-4], str(identity.get("algorithm"))),
            "lag": (parts[-3].removeprefix("lag"), str(identity.get("lag"))),
            "minibatches": (parts[-2].removeprefix("n"), str(identity.get("minibatches"))),
            "seed": (parts[-1].removeprefix("seed"), str(identity.get("seed"))),
        }
    if len(parts) < 5 or parts[-5] != runs:
        return {}
    # A study's runs carry their setting in the name of the folder, so the algorithm is left to the configuration.
    return {
        "env": (parts[-4], str(identity.get("env"))),
        "lag": (parts[-2].removeprefix("lag"), str(identity.get("lag"))),
        "seed": (parts[-1].removeprefix("seed"), str(identity.get("seed"))),
    }


def incomplete(folder: Path, manifest: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Rows that should be there and are not, and values that no run writes.

    Raises:
        UserError: a table cannot be read, or the configuration is none of this version.
        KeyError: a table has not the columns of a run.
    """
    phases, evals = tables.read_parquet(folder / PHASES), tables.read_parquet(folder / EVALS)
    if is_language(manifest):
        yield from _language_rows(folder, manifest, phases, evals)
    else:
        yield from _control_rows(folder, manifest, phases, evals)


def _control_rows(
    folder: Path, manifest: Mapping[str, Any], phases: Mapping[str, NDArray[Any]], evals: Mapping[str, NDArray[Any]]
) -> Iterator[tuple[Path, str]]:
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


def _language_rows(
    folder: Path, manifest: Mapping[str, Any], phases: Mapping[str, NDArray[Any]], evals: Mapping[str, NDArray[Any]]
) -> Iterator[tuple[Path, str]]:
    from vaco.lm.config import build_lm

    config = build_lm(manifest["config"])
    if phases["update"].tolist() != list(range(1, config.updates + 1)):
        rows = len(phases["update"])
        yield folder / PHASES, f"has {rows} rows that are not the {config.updates} updates of the run in order"
    if manifest["completed_steps"] != config.updates:
        yield folder / MANIFEST, f"says {manifest['completed_steps']} updates, but {config.updates} were asked for"
    points = {round(point * config.updates / config.eval_points) for point in range(config.eval_points + 1)}
    if evals["update"].tolist() != sorted(points):
        yield folder / EVALS, "does not hold the evaluation points of the run from first to last"
    # Written so that NaN fails too.
    if not ((evals["accuracy"] >= 0) & (evals["accuracy"] <= 1)).all():
        yield folder / EVALS, "holds an accuracy that is not between 0 and 1"


def load_any_tier(path_or_name: str | Path) -> Any:
    """Read a tier of either kind; those of language models have names that begin with `lm_`.

    Returns:
        A `Tier` or an `LMTier`.

    Raises:
        UserError: as `load_tier` and `load_lm_tier`.
    """
    from vaco.lm.tiers import load_lm_tier
    from vaco.runs.tiers import load_tier

    return load_lm_tier(path_or_name) if Path(path_or_name).name.startswith("lm_") else load_tier(path_or_name)


def asked_runs(tier: Any) -> dict[str, Asked]:
    """The configuration that a tier of either kind asks for, by folder relative to `results/`."""
    if isinstance(tier, Tier):
        return {spec.folder: _Lazy(spec) for spec in tier.runs()}
    return {run.folder: run.config for run in tier.runs}


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
