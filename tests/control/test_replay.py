"""`vaco evaluate`: what is measured outside runs, on streams of its own for every seed and purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vaco.control import replay
from vaco.control.envs import VectorEnv
from vaco.control.train import train
from vaco.runs.config import build
from vaco.runs.identity import EVALUATION_VERSION


def test_seeds_and_purposes_share_no_start_state_and_no_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment i began with the seed + i: seeds 0 and 1 had all start states but one in common."""
    settings = {"env": "InvertedPendulum-v5", "steps": 2048, "eval_points": 1, "eval_episodes": 1}
    train(build(settings), tmp_path / "run", quiet=True, say=lambda sentence: None)
    starts: list[bytes] = []
    reset = VectorEnv.reset

    def heard(env: VectorEnv, seed: int) -> np.ndarray:
        observations = reset(env, seed)
        starts.extend(row.tobytes() for row in observations)
        return observations

    monkeypatch.setattr(VectorEnv, "reset", heard)
    returns = []
    for seed in (0, 1, 2):
        record = replay.random_returns("InvertedPendulum-v5", 5, seed)
        assert record["seed"] == seed and record["evaluation_version"] == EVALUATION_VERSION
        assert record == replay.random_returns("InvertedPendulum-v5", 5, seed)
        replay.policy_returns(tmp_path / "run", 5, seed)
        returns.append(tuple(record["returns"]))
    assert len(set(starts)) == 3 * (5 + 2 * 5)
    assert len(set(returns)) == 3
    draws = [replay._streams(seed, purpose)[1].random() for seed in range(20) for purpose in (1, 2)]
    assert len(set(draws)) == 40


def test_no_source_adds_to_a_seed() -> None:
    """But for the vector environments, whose rule is Gymnasium's, and reasoning-gym's own."""
    import ast

    root = Path(__file__).parents[2]
    allowed = {"gymnasium_backend.py", "batched.py", "procedural.py"}
    found = []
    for folder in ("src", "theory", "benchmarks", "scripts"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult | ast.Sub):
                    names = [ast.unparse(side).rpartition(".")[2] for side in (node.left, node.right)]
                    if any(name.lower() in ("seed", "base_seed") for name in names) and path.name not in allowed:
                        found.append(f"{path}: {node.lineno}: {ast.unparse(node)}")
    assert not found
