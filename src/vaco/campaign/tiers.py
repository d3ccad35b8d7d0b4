"""A tier: the configuration file that says which runs exist, and in what order they are worth having.

A tier file lists environments, algorithms, capacities and seeds; the runs are their product (the grid `main`) and the
product of every further study. A run that several grids ask for is one run: names that mean the same algorithm with
the same settings are written one way, so that the path of a run is unique.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any

from vaco.campaign.tier_file import Study, Sweep, TierFile, check_task
from vaco.command import Parser, run_command
from vaco.errors import UserError, nearest
from vaco.objectives.table import ALIASES, parse
from vaco.paths import user_path
from vaco.runs.config import RunConfig, build, meanings
from vaco.runs.explain import check
from vaco.runs.reads import require_read
from vaco.runs.settings import gathered
from vaco.yaml_file import read_yaml

Setting = str | int | float | bool | tuple[int, ...]
MAIN = "main"
OF_ENVIRONMENTS = ("env_args", "wrappers", "time_limit")
"""Settings that change the task, which the random policy would have to be measured with as well."""
OWN_KEYS = frozenset({"env", "algorithm", "lag", "seed", "steps", "eval_points", "eval_episodes"})
"""Settings of a run that a tier states by keys of its own, hence not under `training`."""


@dataclass(frozen=True)
class RunSpec:
    """One run of a tier.

    Attributes:
        tier: name of the tier.
        env: Gymnasium identifier.
        algorithm: what `vaco train --algorithm` gets: an alias or ALIGN+FILTER.
        name: the algorithm or the named variant, as tables and figures call it.
        lag: capacity K of the policy buffer.
        seed: seed of the run.
        steps: environment steps.
        points: evaluation points after step 0.
        episodes: episodes an evaluation point.
        settings: (field, value) pairs that differ from the defaults of the run configuration, sorted by field.
        grids: the grids of the tier that ask for this run; `main` first.
    """

    tier: str
    env: str
    algorithm: str
    name: str
    lag: int
    seed: int
    steps: int
    points: int
    episodes: int
    settings: tuple[tuple[str, Setting], ...] = ()
    grids: tuple[str, ...] = (MAIN,)

    @cached_property
    def config(self) -> RunConfig:
        """The run's configuration."""
        own = {"env": self.env, "algorithm": self.algorithm, "lag": self.lag, "seed": self.seed, "steps": self.steps}
        return build(own | {"eval_points": self.points, "eval_episodes": self.episodes} | dict(self.settings))

    @property
    def command(self) -> list[str]:
        """The command that makes this run, but for its folder, one shell word an element.

        It is made of what the run is alone, of no tier and no alias: a changed command would train it again.
        """
        words = ["vaco", "train", "--env", self.env, "--algorithm", self.config.parsed.pair, "--lag", str(self.lag)]
        words += ["--seed", str(self.seed), "--steps", str(self.steps)]
        words += ["--eval-points", str(self.points), "--eval-episodes", str(self.episodes)]
        return words + self.set_flags

    @property
    def set_flags(self) -> list[str]:
        """The settings as `--set key=value` words; values are YAML scalars."""
        return [word for key, value in self.settings for word in ("--set", f"{key}={_scalar(value)}")]


@dataclass(frozen=True)
class Grid:
    """One product of a tier: every combination of its four lists is a run. `algorithms` holds path names."""

    environments: tuple[str, ...]
    algorithms: tuple[str, ...]
    capacities: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Method:
    """What a name in a path stands for: an algorithm and the settings that are not the defaults."""

    algorithm: str
    settings: tuple[tuple[str, Setting], ...]


@dataclass(frozen=True)
class Tier:
    """A validated tier.

    `methods` maps every path name to what it stands for, `sweeps` every sweep to its `knob` and the `values` of that by
    path name; `grids` starts with `main`.
    """

    name: str
    description: str
    steps: int
    points: int
    episodes: int
    reference_episodes: int
    reference_seed: int
    grids: Mapping[str, Grid]
    methods: Mapping[str, Method]
    sweeps: Mapping[str, Mapping[str, Any]]

    @property
    def environments(self) -> tuple[str, ...]:
        """Every environment of every grid, in order of first appearance."""
        return tuple(dict.fromkeys(env for grid in self.grids.values() for env in grid.environments))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed of every grid, in order of first appearance."""
        return tuple(dict.fromkeys(seed for grid in self.grids.values() for seed in grid.seeds))

    def runs(self) -> list[RunSpec]:
        """All runs, each once, the most useful first: by seed, the main grid before the studies."""
        asked: dict[tuple[str, str, int, int], list[str]] = {}
        for grid_name, grid in self.grids.items():
            cells = product(grid.seeds, grid.environments, grid.capacities, grid.algorithms)
            for seed, env, lag, name in cells:
                asked.setdefault((env, name, lag, seed), []).append(grid_name)
        specs = [self._spec(*cell, tuple(grids)) for cell, grids in asked.items()]
        # The sort is stable: within one seed and grid the order of the file is kept.
        return sorted(specs, key=lambda spec: -self.priority(spec))

    def planned(self) -> list[RunSpec]:
        """The same, under the name that tiers of every kind have."""
        return self.runs()

    def priority(self, spec: RunSpec) -> int:
        """Larger runs earlier, so that every prefix of the work holds all methods at equally many seeds."""
        later = self.seeds.index(spec.seed)
        return 2 * (len(self.seeds) - later) + (MAIN in spec.grids)

    def find(self, env: str, name: str, lag: int | str, seed: int | str) -> RunSpec:
        """The run of a path, as Snakemake's wildcards name it.

        Raises:
            UserError: the tier has no such run.
        """
        spec = self._by_path.get((env, name, int(lag), int(seed)))
        if spec is None:
            raise UserError(
                f"the tier '{self.name}' has no run {env}/{name}/lag{lag}/seed{seed}: add it to "
                f"config/{self.name}.yaml or ask for a run that is listed there"
            )
        return spec

    @cached_property
    def _by_path(self) -> dict[tuple[str, str, int, int], RunSpec]:
        return {(spec.env, spec.name, spec.lag, spec.seed): spec for spec in self.runs()}

    def _spec(self, env: str, name: str, lag: int, seed: int, grids: tuple[str, ...]) -> RunSpec:
        method = self.methods[name]
        return RunSpec(
            tier=self.name,
            env=env,
            algorithm=method.algorithm,
            name=name,
            lag=lag,
            seed=seed,
            steps=self.steps,
            points=self.points,
            episodes=self.episodes,
            settings=method.settings,
            grids=grids,
        )

    def plan(self) -> str:
        """The tier as one line of JSON: what the statistics need to know of it, and nothing of how it trains.

        The reporting code reads this instead of the tier file, so that it imports nothing from the training code
        and so that a changed comment in the file changes nothing downstream.
        """
        content = {
            "tier": self.name,
            "description": self.description,
            "steps": self.steps,
            "points": self.points,
            "episodes": self.episodes,
            "grids": {
                key: {
                    "environments": list(grid.environments),
                    "algorithms": list(grid.algorithms),
                    "capacities": list(grid.capacities),
                    "seeds": list(grid.seeds),
                }
                for key, grid in self.grids.items()
            },
            "runs": {f"{s.env}/{s.name}/lag{s.lag}/seed{s.seed}": str(s.config.run_id) for s in self.runs()},
            "methods": {
                key: {
                    "algorithm": method.algorithm,
                    "pair": parse(method.algorithm).pair,
                    "settings": dict(method.settings),
                }
                for key, method in self.methods.items()
            },
            "meanings": {key: text for key, text in meanings().items() if key not in OWN_KEYS},
        }
        if self.sweeps:
            content["sweeps"] = self.sweeps
        return json.dumps(content, sort_keys=False, ensure_ascii=True)


def load_tier(path_or_name: str | Path) -> Tier:
    """Read and check a tier.

    Args:
        path_or_name: `smoke` for `config/smoke.yaml` below the working directory, or the path of a YAML file.

    Returns:
        The tier.

    Raises:
        UserError: no such file, not YAML, an unknown or missing key, a value of the wrong kind, an unknown algorithm
            or setting, a name of no environment, a variant that no grid lists, or a name that
            differs from the file's.
    """
    path = _tier_path(path_or_name)
    file = check(read_yaml(path), TierFile, str(path))
    if file.tier != path.stem:
        raise UserError(
            f"{path} calls itself '{file.tier}', but a tier is named after its file: write 'tier: {path.stem}' "
            "or rename the file"
        )
    return _build(file, str(path))


def _tier_path(path_or_name: str | Path) -> Path:
    path = user_path(path_or_name)
    text = str(path_or_name)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise UserError(f"there is no tier file '{path}': give an existing file or the name of a tier in config/")
        return path
    named = Path("config") / f"{text}.yaml"
    if not named.is_file():
        # Beside tiers of control there are the settings, published results and tiers of language models.
        stems = [p.stem for p in Path("config").glob("*.yaml") if not p.stem.startswith("lm_")]
        known = [stem for stem in stems if stem not in {"config", "published", "deposit"}]
        hint = nearest(text, known) if known else "run this command from the root of the repository"
        raise UserError(f"there is no tier '{text}' (no file {named}): {hint}")
    return named


def _build(file: TierFile, where: str) -> Tier:
    _check_sweeps(file, where)
    sweeps = file.sweeps
    file = file.expanded()
    _check_names(file, where)
    methods: dict[str, Method] = {}
    grids = {MAIN: _grid(Study(), file, methods, where)}
    for name, study in file.studies.items():
        if name == MAIN:
            raise UserError(f"{where}: a study may not be called '{MAIN}', which is the tier's own grid: rename it")
        grids[name] = _grid(study, file, methods, where)
    return Tier(
        name=file.tier,
        description=" ".join(file.description.split()),
        steps=file.steps,
        points=file.evaluation.points,
        episodes=file.evaluation.episodes,
        reference_episodes=file.reference.episodes,
        reference_seed=file.reference.seed,
        grids=grids,
        methods=methods,
        sweeps={name: _sweep(name, sweep, file, where) for name, sweep in sweeps.items()},
    )


def _sweep(name: str, sweep: Sweep, file: TierFile, where: str) -> dict[str, Any]:
    """A sweep as the plan has it, of the file in which sweeps are written out."""
    values = {
        _method(variant, file, where)[0]: one.training[sweep.knob] for variant, one in sweep.variants(name).items()
    }
    return {"knob": sweep.knob, "values": values}


def _check_sweeps(file: TierFile, where: str) -> None:
    """Refuse a sweep that nothing lists, or whose name or variants another has."""
    written = set(file.algorithms).union(*(study.algorithms for study in file.studies.values()))
    taken = set(file.variants) | set(ALIASES)
    for name, sweep in file.sweeps.items():
        if name not in written:
            raise UserError(f"{where}: no grid lists the sweep '{name}': list it under algorithms, or remove it")
        made = sweep.variants(name)
        if clash := sorted(taken & {name, *made}):
            raise UserError(f"{where}: the sweep '{name}' makes '{clash[0]}', a name in use: rename the sweep")
        taken |= {name, *made}


def _check_names(file: TierFile, where: str) -> None:
    """Refuse what would otherwise be ignored or ambiguous: dead overrides and variants, variants named like a row."""
    variants = file.variants
    for name in variants:
        if name in ALIASES or "+" in name:
            raise UserError(f"{where}: the variant '{name}' is named like an algorithm: give it a name of its own")
    written = set(file.algorithms).union(*(study.algorithms for study in file.studies.values()))
    unused = sorted(set(variants) - written)
    if unused:
        raise UserError(f"{where}: no grid lists the variant '{unused[0]}': list it under algorithms, or remove it")
    used = {_algorithm(name, file, where) for name in written}
    for name in file.overrides:
        if name not in written and canonical_algorithm(name, where, variants) not in used:
            raise UserError(f"{where}: 'overrides' speaks of '{name}', which no grid of the tier uses: remove it")


def _grid(study: Study, file: TierFile, methods: dict[str, Method], where: str) -> Grid:
    """One grid; enters what its names stand for into `methods`."""
    names = []
    for written in study.algorithms or file.algorithms:
        name, method = _method(written, file, where)
        methods[name] = method
        names.append(name)
    environments = tuple(study.environments or file.environments)
    for env in environments:
        check_task(env, where)
    return Grid(
        environments=environments,
        algorithms=tuple(dict.fromkeys(names)),
        capacities=tuple(study.capacities or file.capacities),
        seeds=tuple(study.seeds or file.seeds),
    )


def _algorithm(written: str, file: TierFile, where: str) -> str:
    """The one spelling of the algorithm that a name of the file stands for."""
    variant = file.variants.get(written)
    return canonical_algorithm(variant.algorithm if variant else written, where, file.variants)


def _method(written: str, file: TierFile, where: str) -> tuple[str, Method]:
    """What a name of the file stands for, and the one spelling under which its runs are stored.

    A pair such as `once+tv` that has an alias is stored under the alias; a variant whose settings are those of the
    plain algorithm is stored as the plain algorithm; of two variants that mean the same, the alphabetically first.
    """
    algorithm = _algorithm(written, file, where)
    method = _settled(written, algorithm, file, where)
    plain = _settled(algorithm, algorithm, file, where)
    if written not in file.variants or method == plain:
        return algorithm, plain
    same = [
        other
        for other in sorted(file.variants)
        if _algorithm(other, file, where) == algorithm and _settled(other, algorithm, file, where) == method
    ]
    return same[0], method


def _settled(name: str, algorithm: str, file: TierFile, where: str) -> Method:
    """Settings of a name: the tier's, then the algorithm's overrides, then the variant's own; defaults left out."""
    settings = dict(file.training)
    for key, value in file.overrides.items():
        if key not in file.variants and canonical_algorithm(key, where, file.variants) == algorithm:
            settings |= value
    if name in file.variants:
        settings |= file.overrides.get(name, {}) | file.variants[name].training
    settings = gathered(settings)
    for key in settings:
        if key in OF_ENVIRONMENTS:
            raise UserError(
                f"{where}: '{key}' changes the task itself, which scores are relative to: list under environments a "
                "name or a module:callable that makes it so"
            )
        if key in OWN_KEYS:
            raise UserError(
                f"{where}: '{key}' is no training setting of '{name}': write it as a key of the tier itself"
            )
    try:
        config = build({"algorithm": algorithm, "steps": file.steps, **settings})
        require_read(config)
    except UserError as problem:
        raise UserError(f"{where}: in the settings of '{name}': {problem}") from None
    kept, plain = {key: getattr(config, key) for key in settings}, build({})
    return Method(algorithm, tuple(sorted((k, v) for k, v in kept.items() if v != getattr(plain, k))))


@cache
def _pair_alias(name: str) -> str:
    align, rule = parse(name).pair.split("+")
    return next((alias for alias, row in ALIASES.items() if row == (align, rule)), f"{align}+{rule}")


def canonical_algorithm(name: str, where: str, variants: Iterable[str] = ()) -> str:
    """The one spelling of an algorithm: its alias if it has one, else ALIGN+FILTER.

    Raises:
        UserError: no such algorithm and no such variant.
    """
    try:
        return _pair_alias(name)
    except UserError as problem:
        hint = f" (or a variant of the file: {', '.join(sorted(variants))})" if variants else ""
        raise UserError(f"{where}: {problem}{hint}") from None


def _scalar(value: Setting) -> str:
    """A value as the YAML scalar that reads back as itself."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m vaco.campaign.tiers TIER` prints the tier's plan, one line of JSON."""
    parser = Parser(prog="python -m vaco.campaign.tiers", description="Print the plan of a tier.")
    parser.add_argument("tier", help="name of a tier in config/, or the path of its file")
    print(load_tier(parser.parse_args(arguments).tier).plan())
    return 0


if __name__ == "__main__":
    run_command(main)
