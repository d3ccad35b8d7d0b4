"""Writers: JSON lines to the letter; the others where their package is installed, and a sentence where it is not."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import vaco
from vaco.errors import UserError
from vaco.writers import JsonLines, TensorBoard, WeightsAndBiases


def some() -> vaco.Diagnostics:
    logp = torch.linspace(-1.0, 0.0, 12)
    return vaco.diagnose(logp, behaviour_logp=torch.full((12,), -0.5))


def test_json_lines_are_appended_and_safe_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "d.jsonl"
    writer = JsonLines(path)
    writer.write(10, some())
    assert json.loads(path.read_text())["total_lag"] == pytest.approx(some().figures()["total_lag"])  # before close
    writer.write(20, {"reward": 1, "bad": math.nan})
    writer.close()
    with JsonLines(path) as again:
        again.write(30, {"reward": 2.5})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[1:] == [{"step": 20, "reward": 1.0}, {"step": 30, "reward": 2.5}]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        JsonLines(tmp_path / "file" / "d.jsonl")


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorBoard(tmp_path) as writer:
        writer.write(3, {"ess": 0.5})
        writer.write(4, {"ess": 0.25})
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("vaco/ess")] == [(3, 0.5), (4, 0.25)]


def test_weights_and_biases_is_given_names_and_step() -> None:
    class Run:
        def log(self, figures: dict[str, float], step: int) -> None:
            self.given: Any = (figures, step)

    run = Run()
    WeightsAndBiases(run).write(7, {"ess": 0.5})
    assert run.given == ({"vaco/ess": 0.5}, 7)


@pytest.mark.parametrize(("package", "make"), [("tensorboard", lambda: TensorBoard(".")), ("wandb", WeightsAndBiases)])
def test_what_is_missing_is_one_sentence(package: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"this needs {package}, which is not installed: pip install {package}$"):
        make()


def test_no_run_under_way_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(run=None))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"call wandb.init first"):
        WeightsAndBiases()
