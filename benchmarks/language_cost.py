"""Peak memory and seconds of a step of SmolLM2-135M on a processor, and A-3PO's saving in seconds of whole steps.

    python benchmarks/language_cost.py    minutes; writes out/language_cost.json; `make smollm2`, extras lora, eight-bit

Memory: each case is a process of its own, on one thread, which loads the model, generates two rounds with a gradient
step each, and reads its own greatest resident size; seconds are those of the second. Steps: decoupled PPO and A-3PO
train the model of `lm_desk` in one process and take turns, a round each; what counts is all of a step, generation and
its share of the proximal policy, in seconds of the processor, which other work on the machine lengthens little.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from vaco.command import Parser, run_command
from vaco.paths import path_flag
from vaco.runs.provenance import _cpu_model

SHARED: dict[str, Any] = {
    **{"model": "smollm2", "task": "chain_sum", "warm_target": 0, "algorithm": "vaco", "new_tokens": 24},
    **{"task_options": {"compact": True, "max_terms": 2, "max_digits": 1}, "eval_problems": 1},
    **{"prompts": 4, "samples": 8, "updates": 2, "eval_points": 1},
}
CASES: dict[str, dict[str, Any]] = {
    "all weights": {},
    "adamw_8bit": {"optimizer": "adamw_8bit"},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "lora_rank 16": {"lora_rank": 16},
    "lora_rank 16 in bfloat16": {"lora_rank": 16, "precision": "bfloat16"},
    "lora_rank 16 and the three": {
        **{"lora_rank": 16, "gradient_checkpointing": True, "logits_at_once": 64, "tokens_at_once": 512},
    },
}


def measure(changes: dict[str, Any]) -> dict[str, float]:
    """Two rounds with a step each in this process: the optimizer's moments are there from the second on."""
    import torch

    from vaco.lm import rounds
    from vaco.lm.config import build_lm
    from vaco.lm.run import Run

    torch.set_num_threads(1)

    def resident() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9

    run = Run(build_lm(SHARED | changes))
    loaded = resident()
    # An untrained answer earns nothing; what is measured does not depend on it.
    for _ in range(run.config.updates):
        row = rounds.advance(run)
    return {
        "loaded_gb": loaded,
        "peak_gb": resident(),
        "trained_parameters": float(sum(value.numel() for value in run.learner.moved)),
        "response_tokens": float(row["tokens"]),
        "generate_seconds": row["generate_seconds"],
        "update_seconds": row["update_seconds"],
    }


def whole_steps(rounds_each: int = 6) -> dict[str, Any]:
    """Processor seconds of a whole gradient step of decoupled PPO and of A-3PO, which take turns, a round each."""
    import torch

    from vaco.lm import rounds
    from vaco.lm.config import build_lm
    from vaco.lm.run import Run
    from vaco.lm.tiers import load_lm_tier

    torch.set_num_threads(1)
    training = {k: v for k, v in load_lm_tier("lm_desk").training.items() if not k.startswith("warm_")}
    shared = training | {"warm_target": 0, "minibatches": 4}
    runs = {name: Run(build_lm(shared | {"algorithm": name})) for name in ("decoupled", "a3po")}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds_each + 1):
        for name, run in runs.items():
            before = time.process_time()
            for _ in range(run.config.minibatches):
                rounds.advance(run)
            if turn:  # the first warms up
                seconds[name].append((time.process_time() - before) / run.config.minibatches)
    medians = {name: median(values) for name, values in seconds.items()}
    saved = median(d - a for d, a in zip(seconds["decoupled"], seconds["a3po"], strict=True))
    return {"seconds": medians, "saved_seconds": saved, "turns": seconds}


def main() -> None:
    """Measure every case, or one of them."""
    parser = Parser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--case", choices=[*CASES, "steps"], help="this one, here, as JSON on standard output")
    parser.add_argument("--out", type=path_flag, default=Path(__file__).parent / "out" / "language_cost.json")
    given = parser.parse_args()
    if given.case == "steps":
        print(json.dumps(whole_steps()))
        return
    if given.case:
        print(json.dumps(measure(CASES[given.case])))
        return
    record: dict[str, Any] = {"processor": _cpu_model(), "load_average": os.getloadavg()[2], "memory": {}}
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    for case in [*CASES, "steps"]:
        words = [sys.executable, __file__, "--case", case]
        done = subprocess.run(words, capture_output=True, encoding="utf-8", env=environment, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        record |= {"steps": found} if case == "steps" else {"memory": record["memory"] | {case: found}}
        print(f"{case}: {found}", file=sys.stderr, flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
