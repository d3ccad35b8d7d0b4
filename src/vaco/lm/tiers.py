"""A tier of language-model runs: which runs exist, where they go, and in what order they are worth having.

The file lists tasks, algorithms, minibatches (N), capacities (K), seeds and settings; the runs are the product, and the
product of every further study. Like a tier of MuJoCo runs, but over settings of `LMConfig`. A variant is an algorithm
with settings of its own, under a name such as `vaco-delta0.1`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from vaco.campaign.tier_file import Closed, Counts, Names, PathName, Seeds, TrainingSettings
from vaco.command import Parser, run_command
from vaco.errors import UserError, nearest
from vaco.lm.config import LM_DEFAULTS, LM_SETTINGS, LMConfig, build_lm, lm_meanings, require_read
from vaco.paths import user_path
from vaco.runs import words
from vaco.runs.explain import check
from vaco.runs.settings import holder_of
from vaco.yaml_file import read_yaml

MAIN = "main"
GRID = ("algorithms", "minibatches", "lags", "seeds")


class LMVariant(Closed):
    """An algorithm with settings of its own."""

    algorithm: str
    training: Annotated[TrainingSettings, Field(min_length=1)]


class LMStudy(Closed):
    """A further grid; a list that it leaves out is the tier's."""

    algorithms: Names = Field(default=[])
    minibatches: Counts = Field(default=[])
    lags: Counts = Field(default=[])
    seeds: Seeds = Field(default=[])


class LMTierFile(Closed):
    """A tier of language-model runs."""

    tier: Annotated[str, Field(pattern="^lm_[A-Za-z0-9._-]+$")]
    description: str
    algorithms: Names
    minibatches: Counts
    lags: Counts
    seeds: Seeds
    training: TrainingSettings
    variants: dict[PathName, LMVariant] = Field(default={})
    studies: dict[str, LMStudy] = Field(default={})


@dataclass(frozen=True)
class LMRun:
    """One run of a tier.

    Attributes:
        tier: the tier's name.
        name: the algorithm or the variant, a component of the path.
        config: the run's configuration.
        own: the variant's settings, none for an algorithm.
        grids: the grids that ask for it, `main` first.
    """

    tier: str
    name: str
    config: LMConfig
    own: Mapping[str, Any]
    grids: tuple[str, ...]

    @property
    def cell(self) -> str:
        """The run in words, as tables and messages name it."""
        c = self.config
        return f"{self.name}/lag{c.lag}/n{c.minibatches}/seed{c.seed}"

    @property
    def command(self) -> list[str]:
        """The command that makes this run, but for its folder and its warm start, one shell word an element.

        It is made of what the run is alone, of no tier and no alias: a changed command would train it again.
        """
        given = self.config.resolved() | {"algorithm": self.config.parsed.canonical}
        own = {name: value for name, value in given.items() if value != LM_DEFAULTS[name]}
        return ["vaco", "lm", "train", *(word for name in sorted(own) for word in ("--set", f"{name}={own[name]}"))]


@dataclass(frozen=True)
class LMTier:
    """A validated tier; `runs` are in the order in which they are worth having."""

    name: str
    description: str
    training: Mapping[str, Any]
    grids: Mapping[str, Mapping[str, Sequence[Any]]]
    runs: tuple[LMRun, ...]

    @property
    def warm(self) -> LMConfig:
        """A configuration with the tier's warm start."""
        return self.runs[0].config

    def planned(self) -> tuple[LMRun, ...]:
        """The runs, under the name that tiers of every kind have."""
        return self.runs

    def priority(self, run: LMRun) -> int:
        """Larger for earlier runs: every prefix of the work holds all methods of a grid at equally many seeds."""
        return len(self.runs) - self.runs.index(run)

    def plan(self) -> str:
        """The tier as one line of JSON: what the statistics need to know of it."""
        content = {
            "tier": self.name,
            "description": self.description,
            "grids": {name: {key: list(values) for key, values in grid.items()} for name, grid in self.grids.items()},
            "runs": [
                {"run": str(run.config.run_id), "name": run.name, "grids": list(run.grids), "cell": run.cell}
                for run in self.runs
            ],
            "training": self.warm.resolved(),
            "meanings": lm_meanings(),
        }
        return json.dumps(content, ensure_ascii=True)


def load_lm_tier(path_or_name: str | Path) -> LMTier:
    """Read and check a tier.

    Args:
        path_or_name: `lm_smoke` for `config/lm_smoke.yaml` below the working directory, or the path of a YAML file.

    Raises:
        UserError: no such file, not YAML, an unknown or missing key, a value of the wrong kind, an unknown algorithm
            or setting, or a name that differs from the file's.
    """
    text = str(path_or_name)
    path = user_path(text) if text.endswith((".yaml", ".yml")) else Path("config") / f"{text}.yaml"
    if not path.is_file():
        known = [p.stem for p in Path("config").glob("lm_*.yaml")]
        hint = nearest(text, known) if known else "run this command from the root of the repository"
        raise UserError(f"there is no language-model tier '{text}' (no file {path}): {hint}")
    file = check(read_yaml(path), LMTierFile, str(path))
    if file.tier != path.stem:
        raise UserError(f"{path} calls itself '{file.tier}', but a tier is named after its file: rename one of them")
    return _build(file, str(path))


def _build(file: LMTierFile, where: str) -> LMTier:
    if MAIN in file.studies:
        raise UserError(f"{where}: a study may not be called '{MAIN}', which is the tier's own grid: rename it")
    studies = {MAIN: LMStudy(), **file.studies}
    grids = {name: {key: getattr(study, key) or getattr(file, key) for key in GRID} for name, study in studies.items()}
    _check_settings(file.training, where)
    for name, variant in file.variants.items():
        _check_settings(variant.training, f"{where}, variant '{name}'")
        if not name.startswith(f"{variant.algorithm}-"):
            raise UserError(
                f"{where}: the variant '{name}' is not named after its algorithm: call it "
                f"'{variant.algorithm}-' and what is its own"
            )
    asked: dict[tuple[str, int, int, int], list[str]] = {}
    for grid_name, grid in grids.items():
        for cell in product(grid["seeds"], grid["lags"], grid["minibatches"], grid["algorithms"]):
            seed, lag, minibatches, name = cell
            asked.setdefault((name, minibatches, lag, seed), []).append(grid_name)
    unused = sorted(set(file.variants) - {name for name, *_ in asked})
    if unused:
        raise UserError(f"{where}: no grid lists the variant '{unused[0]}': list it under algorithms, or remove it")
    runs = []
    for (name, minibatches, lag, seed), grid_names in asked.items():
        chosen = file.variants.get(name)
        algorithm, own = (chosen.algorithm, chosen.training) if chosen else (name, {})
        settings = {"algorithm": algorithm, "minibatches": minibatches, "lag": lag, "seed": seed}
        try:
            config = _config(file.training, own, settings)
        except UserError as problem:
            raise UserError(f"{where}: {problem}") from None
        runs.append(LMRun(file.tier, name, config, own, tuple(grid_names)))
    _check_read(file.training, [run.config for run in runs], where)
    other = next((run for run in runs if run.config.warm_hash != runs[0].config.warm_hash), None)
    if other:
        raise UserError(
            f"{where}: the variant '{other.name}' changes what the warm start is made of, which all runs share: leave "
            "its training to algorithm, steps and thresholds"
        )
    seeds = list(dict.fromkeys(run.config.seed for run in runs))
    # The main grid first, and all methods at the first seed before the second; stable within.
    runs.sort(key=lambda run: (MAIN not in run.grids, seeds.index(run.config.seed)))
    return LMTier(file.tier, " ".join(file.description.split()), file.training, grids, tuple(runs))


def _config(shared: Mapping[str, Any], own: Mapping[str, Any], settings: Mapping[str, Any]) -> LMConfig:
    """A run's configuration: of the tier's settings those that its algorithm reads, and all of a variant's.

    Raises:
        UserError: a value out of range, or a setting of the variant's own that its algorithm does not read.
    """
    config = build_lm({**shared, **own, **settings})
    require_read(own, config)
    idle = {name for name in shared if holder_of(name) in config.unread and name not in own}
    return build_lm({**{name: value for name, value in shared.items() if name not in idle}, **own, **settings})


def _check_read(shared: Mapping[str, Any], configs: Sequence[LMConfig], where: str) -> None:
    """Refuse a setting of the tier that no run of it reads.

    Raises:
        UserError: there is one.
    """
    for name in shared:
        holder = holder_of(name)
        unread = [config.unread.get(holder) for config in configs]
        if all(unread) and build_lm({name: shared[name]}).resolved()[holder] != LM_DEFAULTS[holder]:
            raise UserError(f"{where}: no run reads {name}, since {unread[0]}: remove it")


def _check_settings(given: Mapping[str, Any], where: str) -> None:
    """Refuse settings that are keys of the tier, and settings that do not exist.

    Raises:
        UserError: there is one.
    """
    for name in given:
        if name in ("algorithm", "minibatches", "lag", "seed"):
            raise UserError(f"{where}: '{name}' is no training setting: write it as a key of the tier itself")
        if holder_of(str(name)) not in LM_SETTINGS:
            hint = words.hint(str(name), LM_SETTINGS, lm_meanings())
            raise UserError(f"{where}: there is no setting '{name}': {hint}")


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m vaco.lm.tiers TIER` prints the tier's plan, one line of JSON."""
    parser = Parser(prog="python -m vaco.lm.tiers", description="Print the plan of a tier.")
    parser.add_argument("tier", help="name of a tier in config/, or the path of its file")
    print(load_lm_tier(parser.parse_args(arguments).tier).plan())
    return 0


if __name__ == "__main__":
    run_command(main)
