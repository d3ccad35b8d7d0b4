"""What a tier asked for, as the reporting code sees it: grids of cells, and what every path name stands for.

The plan is one JSON object, written by `vaco.campaign.tiers.Tier.plan` and handed over on the command line, so that
nothing here imports training code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from vaco.errors import UserError

MAIN = "main"


class Cell(NamedTuple):
    """One run that the plan asks for, in the words of its tier."""

    env: str
    name: str
    lag: int
    seed: int

    @property
    def path(self) -> str:
        """The cell in one word, as plans and messages name it."""
        return f"{self.env}/{self.name}/lag{self.lag}/seed{self.seed}"


@dataclass(frozen=True)
class Grid:
    """A product of four lists."""

    environments: tuple[str, ...]
    names: tuple[str, ...]
    lags: tuple[int, ...]
    seeds: tuple[int, ...]

    def cells(self) -> list[Cell]:
        """Every combination, environments slowest, seeds fastest."""
        return [Cell(*cell) for cell in product(self.environments, self.names, self.lags, self.seeds)]


@dataclass(frozen=True)
class Method:
    """What a path name stands for: the algorithm, and the settings that are not the defaults."""

    algorithm: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """The plan of a tier. `runs` gives the identity of each cell's run; `text` is the JSON that it was read from."""

    tier: str
    description: str
    steps: int
    points: int
    episodes: int
    grids: Mapping[str, Grid]
    methods: Mapping[str, Method]
    meanings: Mapping[str, str]
    runs: Mapping[str, str]
    text: str

    @property
    def main(self) -> Grid:
        """The tier's own grid, of which Figures 3 and 4 are made."""
        return self.grids[MAIN]

    @property
    def config_hash(self) -> str:
        """Sha256 of the plan's canonical JSON, without its prose."""
        content = {k: v for k, v in json.loads(self.text).items() if k not in ("description", "meanings")}
        canonical = json.dumps(content, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def cells(self) -> list[Cell]:
        """Every run of every grid, each once."""
        return list(dict.fromkeys(cell for grid in self.grids.values() for cell in grid.cells()))

    def environments(self) -> list[str]:
        """Every environment, in order of first appearance."""
        return list(dict.fromkeys(env for grid in self.grids.values() for env in grid.environments))


def read_plan(text: str) -> Plan:
    """Read a plan from its JSON.

    Raises:
        UserError: not a plan.
    """
    try:
        raw = json.loads(text)
        grids = {
            key: Grid(
                tuple(grid["environments"]),
                tuple(grid["algorithms"]),
                tuple(grid["capacities"]),
                tuple(grid["seeds"]),
            )
            for key, grid in raw["grids"].items()
        }
        methods = {key: Method(m["algorithm"], m["settings"]) for key, m in raw["methods"].items()}
        scale = (raw["tier"], raw["description"], raw["steps"], raw["points"], raw["episodes"])
        meanings, runs = dict(raw["meanings"]), dict(raw["runs"])
    except (json.JSONDecodeError, KeyError, TypeError) as problem:
        raise UserError(f"this is not a plan ({problem}): pass what vaco.campaign.tiers wrote") from problem
    return Plan(*scale, grids=grids, methods=methods, meanings=meanings, runs=runs, text=text)
