"""scripts/lm-gpu.sh with stand-ins: the tiny model on the processor, and a server that speaks as vLLM does."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VLLM = """#!{python}
import sys
from http.server import ThreadingHTTPServer
from test_lm_engines import Server
assert sys.argv[1] == "serve" and '{{"backend": "disk"}}' in sys.argv
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Server).serve_forever()
"""
TIER = """
tier: lm_standin
description: two runs
algorithms: [vaco]
minibatches: [1, 2]
lags: [1]
seeds: [0]
training:
  model_options: {hidden: 32, layers: 2, heads: 2, intermediate: 64}
  new_tokens: 6
  warm_target: 0
  updates: 2
  prompts: 2
  samples: 2
  eval_points: 1
  eval_problems: 4
"""


@pytest.mark.slow
def test_one_command_trains_with_either_engine_and_sums_up(tmp_path: Path) -> None:
    tier, vllm = tmp_path / "lm_standin.yaml", tmp_path / "vllm"
    tier.write_text(TIER)
    vllm.write_text(VLLM.format(python=sys.executable))
    vllm.chmod(0o755)
    environment = {
        **os.environ,
        **{"VACO_TIER": str(tier), "VACO_VLLM": str(vllm), "PORT": str(21_000 + os.getpid() % 20_000)},
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    words = ["bash", str(ROOT / "scripts/lm-gpu.sh"), str(tmp_path / "out")]
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "out/summary.csv").open()))
    assert [(row["engine"], row["cell"]) for row in rows] == [
        (engine, f"vaco-lag1-n{n}-seed0") for engine in ("local", "vllm") for n in (1, 2)
    ]
    assert all(float(row["generated_tokens_per_second"]) > 0 for row in rows)
