"""The state of a language-model run as arrays, for checkpoints, and its rows as columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaco.lag import PolicyBuffer
from vaco.lm.learner import Round
from vaco.lm.run import Run, Snapshot
from vaco.lm.sample import as_arrays, from_arrays
from vaco.lm.weights import Arrays, Lazy, set_parameters, trained

INTEGERS = ("update", "round", "place", "responses", "tokens", "problems")
_OF_ROUND = ("rewards", "advantages", "versions", "reference_logp", "order")


def columns(rows: list[dict[str, float]], precision: type[np.floating] = np.float32) -> Arrays:
    """Rows as columns, whole numbers as int64."""
    names = rows[0] if rows else ()
    return {n: np.array([r[n] for r in rows], np.int64 if n in INTEGERS else precision) for n in names}


def facts(run: Run) -> dict[str, Any]:
    """What is not an array."""
    draws = {name: generator.bit_generator.state for name, generator in run.generators.items()}
    versions = [snapshot.version for snapshot in run.buffer]
    return {"update": run.update, "seconds": run.clock.total, "versions": versions, "draws": draws}


def arrays(run: Run) -> Mapping[str, NDArray[Any]]:
    """Everything else that a bitwise continuation needs, not copied: to be written before the run goes on."""
    result: dict[str, Tensor | NDArray[Any]] = {f"model.{name}": value for name, value in trained(run.model)}
    moments = run.learner.optimizer.state
    for name, value in trained(run.model):  # none before the first step
        for key, entry in moments.get(value, {}).items():
            result[f"adam.{name}|{key}"] = entry if isinstance(entry, Tensor) else np.array(entry)
    for place, snapshot in enumerate(run.buffer):
        if isinstance(snapshot.weights, dict):
            result |= {f"buffer.{place}.{name}": value for name, value in snapshot.weights.items()}
    if run.round is not None and run.update % run.config.minibatches:
        result |= {f"round.{name}": getattr(run.round, name).cpu().numpy() for name in _OF_ROUND}
        if run.round.aligned_logp is not None:
            result["round.aligned_logp"] = run.round.aligned_logp.cpu().numpy()
        result |= {f"responses.{name}": value for name, value in as_arrays(run.round.responses).items()}
        if run.proximal is not None:
            result["proximal"] = run.proximal.cpu().numpy()
    if run.source is not None:
        result |= {f"source.{name}": value for name, value in run.source.state().items()}
    result |= {f"rows.{name}": value for name, value in columns(run.rows, np.float64).items()}
    result |= {f"evals.{name}": value for name, value in columns(run.evals, np.float64).items()}
    return Lazy(result)


def restore(run: Run, meta: dict[str, Any], saved: Arrays) -> None:
    """Continue from what `facts` and `arrays` returned."""

    def part(prefix: str) -> Arrays:
        return {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}

    device = next(run.model.parameters()).device
    run.update, run.clock.total = int(meta["update"]), float(meta["seconds"])
    set_parameters(run.model, part("model."))
    _restore_adam(run, part("adam."))
    for name, generator in run.generators.items():
        generator.bit_generator.state = meta["draws"][name]
    run.buffer = PolicyBuffer(run.config.lag)
    kept = run.config.lag > 1
    for place, version in enumerate(meta["versions"]):
        run.buffer.push(Snapshot(int(version), part(f"buffer.{place}.") or (run.kept(version) if kept else None)))
    if "round.rewards" in saved:
        tensors = {name: torch.from_numpy(value).to(device) for name, value in part("round.").items()}
        run.round = Round(responses=from_arrays(part("responses."), device), **tensors)
        run.proximal = torch.from_numpy(saved["proximal"]).to(device) if "proximal" in saved else None
    if run.source is not None:
        run.source.set_state(part("source."))
    run.rows, run.evals = _to_rows(part("rows.")), _to_rows(part("evals."))


def _restore_adam(run: Run, saved: Arrays) -> None:
    """The moments as they were, in the types they had: only what has a shape lies where its parameter does."""
    own = dict(trained(run.model))
    for key, array in saved.items():
        name, _, part = key.rpartition("|")
        entry = torch.from_numpy(array.copy())
        value = entry.to(own[name].device) if entry.dim() else entry
        # torch's AdamW counts steps in a tensor, bitsandbytes' in an integer.
        whole = not entry.dim() and not entry.is_floating_point()
        run.learner.optimizer.state[own[name]][part] = int(entry) if whole else value


def _to_rows(table: Arrays) -> list[dict[str, float]]:
    values = zip(*(column.tolist() for column in table.values()), strict=True)
    return [dict(zip(table, row, strict=True)) for row in values]
