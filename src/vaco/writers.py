"""Where diagnostics go: a file of JSON lines, TensorBoard, Weights & Biases.

    with JsonLines("run/diagnostics.jsonl") as writer:
        writer.write(step, diagnostics)

Every writer takes a step and either `Diagnostics` or a mapping of names to numbers. ``vaco compare`` draws files of
JSON lines beside each other.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vaco.errors import UserError

if TYPE_CHECKING:
    from vaco.diagnostics import Diagnostics

Figures = Mapping[str, float]


class Writer(ABC):
    """What all writers share; `close` may be called twice."""

    def __enter__(self) -> Writer:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def write(self, step: int, what: Diagnostics | Figures) -> None:
        """Write the figures of a step.

        Args:
            step: gradient steps, environment steps or tokens: whatever is counted.
            what: diagnostics, or figures by name.
        """
        figures = what if isinstance(what, Mapping) else what.figures()
        self._write(step, {name: float(value) for name, value in figures.items()})

    @abstractmethod
    def _write(self, step: int, figures: Figures) -> None:
        """Write figures by name."""

    def close(self) -> None:  # noqa: B027 (some have nothing open)
        """Finish whatever is open."""


class JsonLines(Writer):
    """A file with one line a step, written at once, so that a killed process loses none; an existing file is continued.

    A figure that is not finite is left out of its line, for JSON has no NaN.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the file.

        Args:
            path: the file; its folder is made.

        Raises:
            UserError: it cannot be written.
        """
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}): give another path") from error

    def _write(self, step: int, figures: Figures) -> None:
        content = {"step": step} | {name: value for name, value in figures.items() if math.isfinite(value)}
        self._stream.write(json.dumps(content) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class TensorBoard(Writer):
    """Scalars under ``vaco/``; needs the package tensorboard."""

    def __init__(self, folder: str | Path) -> None:
        """Begin an event file in a folder.

        Raises:
            UserError: tensorboard is not installed.
        """
        _need("tensorboard")
        self._writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(str(folder))

    def _write(self, step: int, figures: Figures) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(f"vaco/{name}", value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WeightsAndBiases(Writer):
    """Metrics under ``vaco/`` of a run of Weights & Biases; needs the package wandb."""

    def __init__(self, run: Any = None) -> None:
        """Take a run.

        Args:
            run: what ``wandb.init`` returned; None for the run that is under way.

        Raises:
            UserError: wandb is not installed, or no run is under way.
        """
        self._run = _need("wandb").run if run is None else run
        if self._run is None:
            raise UserError("no run of Weights & Biases is under way: call wandb.init first, or give its run")

    def _write(self, step: int, figures: Figures) -> None:
        self._run.log({f"vaco/{name}": value for name, value in figures.items()}, step=step)


def _need(package: str) -> Any:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise UserError(f"this needs {package}, which is not installed: pip install {package}") from error
