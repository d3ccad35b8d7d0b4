"""What Figures 1 and 2 share: they are drawn from JSON in `results/demonstrations`, not from the tables of a tier."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes

from vaco.command import Parser
from vaco.errors import UserError
from vaco.paths import path_flag
from vaco.report.figures import style
from vaco.report.figures.product import Drawn

INK, MUTED, RULE = "0.15", "0.45", "0.8"


class Data:
    """The JSON files in one folder `results/demonstrations`.

    Attributes:
        folder: where they are.
        used: paths read so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: list[Path] = []

    def read(self, name: str) -> Any:
        """Read `name`.json.

        Raises:
            UserError: there is no such file.
        """
        path = self.folder / f"{name}.json"
        if not path.is_file():
            raise UserError(
                f"there is no {path}: make it with snakemake demonstration_data, or get it from the repository"
            )
        self.used.append(path)
        return json.loads(path.read_text(encoding="utf-8"))


def command(draw: Callable[[Data], Drawn], arguments: Sequence[str] | None, description: str) -> int:
    """Draw from `--data DIR`; write `--out STEM`.pdf, .svg, .png and the sidecar .json."""
    parser = Parser(description=description)
    parser.add_argument("--data", type=path_flag, required=True, help="folder results/demonstrations")
    parser.add_argument("--out", type=path_flag, required=True, help="path of the product without its suffix")
    given = parser.parse_args(arguments)
    data, stem = Data(given.data), given.out
    drawn = draw(data)
    style.save(drawn.figure, stem)
    # Identifiers inside an SVG are random unless they are salted; text as paths needs no font of the reader.
    with matplotlib.rc_context({"svg.hashsalt": stem.name, "svg.fonttype": "path"}):
        drawn.figure.savefig(stem.with_name(stem.name + ".svg"), metadata={"Date": None})
    sources = {path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in data.used}
    record = {"name": stem.name, "caption": drawn.caption, "tables": sources, "command": f"snakemake {stem.name}"}
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    stem.with_name(stem.name + ".json").write_text(text, encoding="utf-8")
    return 0


def bare(axes: Axes) -> None:
    """An axes for drawing: no frame, no ticks, no grid."""
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
