"""What a run reads besides its settings and the code: problems, weights, tokenizer files, a warm start.

Each goes into the manifest as a hash of its content, and a run is neither continued nor called complete where one has
changed. Relative paths in a run's settings start from the folder that its first command was started in, which the
run's own record keeps, as a path relative to the run's folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaco.lm.config import LMConfig
from vaco.lm.model_files import model_files
from vaco.lm.task import Task, make_task
from vaco.runs import checkpoint
from vaco.runs.folder import RunFolder

PATHS = ("train", "eval", "path")
"""Settings of a task that name files."""
STARTED_IN = "started_in"
"""The entry of a run's record with the folder of its relative paths."""


def anchored(config: LMConfig, base: Path) -> tuple[str, dict[str, Any]]:
    """The model's name and the task's settings with their relative paths resolved.

    Args:
        config: the run's configuration.
        base: the folder that they start from.
    """
    options = {
        key: str(base / Path(value).expanduser()) if key in PATHS and isinstance(value, str) and value else value
        for key, value in config.task_settings.items()
    }
    own = Path(config.model).expanduser()
    local = config.model.startswith((".", "~")) or (config.model and (base / own).exists())
    return str(base / own) if local else config.model, options if config.task == "gsm8k" else config.task_settings


def has_relative_paths(config: LMConfig) -> bool:
    """Whether the settings name a file or folder that depends on where the command was started."""
    model, options = anchored(config, Path())
    named = [options[key] for key in PATHS if config.task == "gsm8k" and options.get(key)]
    named += [model] if model.startswith(".") or (model and Path(model).exists()) else []
    return any(not Path(path).is_absolute() for path in named)


def started_in(folder: Path) -> str:
    """The working directory as a run's record has it: relative to the run's folder, so that both may move."""
    return os.path.relpath(Path.cwd(), folder.resolve())


def base_of(folder: RunFolder) -> Path:
    """The folder that the relative paths of a run's settings start from."""
    return (folder.path / str(folder.record.get(STARTED_IN, ""))).resolve() if STARTED_IN in folder.record else Path()


def at_hand(config: LMConfig, warm: Path | None, base: Path) -> dict[str, str]:
    """The inputs of a finished run that can be compared without fetching or training anything.

    Raises:
        UserError: a file is there but cannot be read.
    """
    model, options = anchored(config, base)
    found = of_model(model)
    files = [Path(options[key]) for key in PATHS if options.get(key)]
    if config.task == "gsm8k" and files and all(path.is_file() for path in files):
        found |= of_problems(make_task(config.task, options))
    if config.warm_target > 0 and warm is not None and warm.is_file():
        found |= of_weights(checkpoint.read(warm)[0])
    return found


def of_model(name: str) -> dict[str, str]:
    """Hashes of a local model's files, or the revision of one from the hub; empty for `tiny` and what is not there."""
    found = model_files(name)
    if isinstance(found, str):
        return {"revision of the model": found}
    return {what: _of_files(files) for what, files in found.items() if files}


def of_problems(task: Task) -> dict[str, str]:
    """A hash of all problems, for a task that reads rather than draws them."""
    if task.name != "gsm8k":
        return {}
    digest = hashlib.sha256()
    for split in ("train", "eval"):
        for problem in task.problems(split, range(task.size(split) or 0)):
            digest.update(repr((split, problem.prompt, problem.answer, problem.solution)).encode())
    return {"problems": digest.hexdigest()}


def of_weights(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """A hash of a warm start's weights, however they came about."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype} {value.shape}\0".encode() + value.tobytes())
    return {"warm start": digest.hexdigest()}


def _of_files(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as stream:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
