"""Reading the tables of a tier, and remembering which were read: a figure is a pure function of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vaco.errors import UserError

MAIN = "main"


class Tables:
    """The tables in one folder `build/results/<tier>/tables`.

    Attributes:
        folder: where they are.
        used: paths read so far, in order; the sources of what is made of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: list[Path] = []
        self.summary: Mapping[str, Any] = self.json("summary")
        if not isinstance(self.summary, dict):
            raise UserError(f"{folder / 'summary.json'} is no summary of a tier: make it again with snakemake tables")

    def read(self, name: str) -> pd.DataFrame:
        """Read the table `name`.parquet."""
        path = self._path(f"{name}.parquet")
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:  # Arrow's errors are of these two
            raise UserError(f"the table {path} is damaged: delete it and make it with snakemake tables") from error

    def json(self, name: str) -> Any:
        """Read `name`.json."""
        path = self._path(f"{name}.json")
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged: delete it and make it with snakemake tables") from error

    def _path(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise UserError(f"there is no table {path}: make it with snakemake tables, or get it from the repository")
        self.remember(path)
        return path

    def remember(self, path: Path) -> None:
        """Count a file that is no table of the tier among the sources."""
        if path not in self.used:
            self.used.append(path)

    def grid(self, name: str = MAIN) -> Mapping[str, Any]:
        """One grid of the tier: `environments`, `algorithms`, `capacities`, `seeds`."""
        found: Mapping[str, Any] = self.summary["grids"][name]
        return found

    @property
    def methods(self) -> Mapping[str, Any]:
        """What every path name stands for."""
        found: Mapping[str, Any] = self.summary["methods"]
        return found

    def sources(self) -> dict[str, str]:
        """Path and sha256 of every table read so far."""
        return {path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in self.used}


def drawn_last(names: Sequence[str]) -> list[str]:
    """The order in which lines are drawn: as listed, but VACO last, so that nothing covers it."""
    return sorted(names, key=lambda name: name == "vaco")
