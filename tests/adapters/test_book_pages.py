"""The book's page on trainers of one's own, carried out: each library's script, and what `vaco compare` draws."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "paper/book/in_your_trainer.md").read_text(encoding="utf-8")
SCRIPTS = dict(re.findall(r"```\{code-block\} python\n:caption: (\S+)\n\n(.*?)```", PAGE, re.DOTALL))
NEEDS = {"sb3": "stable_baselines3", "torchrl": "torchrl", "trl": "trl"}


def test_there_is_a_script_for_each_adapter() -> None:
    assert set(SCRIPTS) == {f"with_{name}.py" for name in NEEDS}
    for name in NEEDS:
        assert f'pip install "vaco[{name}]"' in PAGE and f"vaco compare runs/{name}.jsonl" in PAGE


@pytest.mark.parametrize("name", NEEDS)
def test_a_script_trains_and_its_curve_is_drawn(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f'needs {NEEDS[name]}: pip install "vaco[{name}]"')
    (tmp_path / "script.py").write_text(SCRIPTS[f"with_{name}.py"], encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""}
    commands = (["script.py"], ["-m", "vaco", "compare", f"runs/{name}.jsonl", "--out", "page.html"])
    if importlib.util.find_spec("pydantic") is None:  # the command line of runs needs more than the core
        commands = commands[:1]
    for words in commands:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / f"runs/{name}.jsonl").read_text().splitlines()]
    assert len(rows) >= 8 and all(row["nonfinite"] == 0 for row in rows)
    assert max(row["forward_lag"] for row in rows) > 0
    if len(commands) > 1:
        assert "<figcaption>forward_lag</figcaption>" in (tmp_path / "page.html").read_text()
