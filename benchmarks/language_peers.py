"""A whole step of reinforcement learning of language models beside TRL's GRPO at equal work, on one core.

    python benchmarks/language_peers.py --out benchmarks/results      minutes; `make smollm2`, extra trl

A step generates responses of 12 tokens at most, eight to each prompt, and makes one gradient step of all weights on
them, in float32 with AdamW: the model of `lm_desk` with 32 prompts, before its warm start, and SmolLM2-135M with
four. Both sides have the same weights, tokenizer, template and kind of problems. TRL's settings are its own but for
those that would make the work another: no gradient checkpointing, no bfloat16, one minibatch of all responses. Every
measurement is a process of its own, with one thread; the contestants take turns, and the first step of each turn is
left out. Seconds are the processor's. Writes language_peers.json and language_peers.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from vaco.command import Parser, run_command
from vaco.paths import path_flag
from vaco.runs.provenance import _cpu_model

SAMPLES, NEW_TOKENS = 8, 12
PROBLEMS = {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1}
SIZE = {"hidden": 96, "layers": 2, "heads": 4, "intermediate": 256}
PROMPTS = {"tiny": 32, "smollm2": 4}
NAMES = {"ours": "ours", "trl": "TRL"}


def ours(model: str, steps: int) -> list[dict[str, float]]:
    """Seconds and tokens of each of our steps, the first included."""
    from vaco.lm import rounds
    from vaco.lm.config import build_lm
    from vaco.lm.run import Run

    settings: dict[str, Any] = {
        **{"model": model, "task": "chain_sum", "task_options": PROBLEMS, "warm_target": 0, "algorithm": "ppo"},
        **{"new_tokens": NEW_TOKENS, "prompts": PROMPTS[model], "samples": SAMPLES, "updates": steps, "eval_points": 1},
        **({"model_options": SIZE} if model == "tiny" else {}),
    }
    run, found = Run(build_lm(settings | {"learning_rate": 1e-6})), []
    for _ in range(steps):
        before = time.process_time()
        row = rounds.advance(run)
        found.append({"seconds": time.process_time() - before, "tokens": float(row["tokens"])})
    return found


def trl(model: str, steps: int) -> list[dict[str, float]]:
    """Seconds and tokens of each of TRL's steps, the first included."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from vaco.lm.export import export
    from vaco.lm.model import load_model
    from vaco.lm.task import make_task

    task, loaded = make_task("chain_sum", PROBLEMS), load_model(model, size=SIZE if model == "tiny" else None)
    problems = {problem.prompt: problem for problem in task.problems("train", range(PROMPTS[model] * steps))}
    found: list[dict[str, float]] = []
    tokens: list[float] = []

    def reward(prompts: Any, completions: Any, completion_ids: Any, **_: Any) -> list[float]:
        tokens.append(float(sum(map(len, completion_ids))))
        plain = isinstance(prompts[0], str)
        pairs = zip(prompts, completions, strict=True)
        texts = pairs if plain else ((p[0]["content"], text[0]["content"]) for p, text in pairs)
        return [task.verify(text, problems[prompt]) for prompt, text in texts]

    class Clock(TrainerCallback):
        before = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.before = time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            found.append({"seconds": time.process_time() - self.before, "tokens": tokens[-1]})

    with tempfile.TemporaryDirectory() as folder:
        export(loaded, Path(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        asked = [[{"role": "user", "content": text}] if tokenizer.chat_template else text for text in problems]
        settings = GRPOConfig(
            **{"output_dir": f"{folder}/out", "max_steps": steps, "use_cpu": True, "bf16": False, "report_to": "none"},
            **{"per_device_train_batch_size": PROMPTS[model] * SAMPLES, "num_generations": SAMPLES, "seed": 0},
            **{"max_completion_length": NEW_TOKENS, "gradient_checkpointing": False, "save_strategy": "no"},
            **{"learning_rate": 1e-6, "disable_tqdm": True, "dataloader_pin_memory": False},
        )
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype="float32"),
            reward_funcs=reward,
            args=settings,
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in asked]),
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        trainer.train()
    return found


def render(record: dict[str, Any]) -> str:
    """The table of the book."""
    lines = ["| seconds of the processor a step | ours | TRL | ours / TRL | target | tokens generated, ours and TRL |"]
    lines.append("|---|---|---|---|---|---|")
    for model, cells in record["models"].items():
        seconds = {name: [step["seconds"] for step in cells["steps"][name]] for name in NAMES}
        spread = (f"{median(s):.2f} ({min(s):.2f} to {max(s):.2f})" for s in seconds.values())
        counts = " and ".join(f"{median(step['tokens'] for step in cells['steps'][name]):.0f}" for name in NAMES)
        lines.append(f"| {model} | {' | '.join(spread)} | **{cells['ratio']:.2f}** | ≤ 1 | {counts} |")
    lines += ["", f"{record['processor']}, one thread, {record['rounds']} turns, TRL {record['trl']}. {record['note']}"]
    return "\n".join(lines).rstrip() + "\n"


def measure(model: str, rounds: int, steps: int) -> dict[str, Any]:
    """Both sides in turn: the seconds and tokens of every step but the first of a turn, and the ratio of medians."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    for turn in range(rounds):
        for name in NAMES:
            words = [sys.executable, __file__, "--worker", name, model, str(steps)]
            done = subprocess.run(words, capture_output=True, encoding="utf-8", env=environment, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            found[name] += json.loads(done.stdout.splitlines()[-1])[1:]
            print(f"turn {turn + 1}  {model:8} {name:5} {found[name][-1]}", file=sys.stderr, flush=True)
    middle = {name: median(step["seconds"] for step in steps) for name, steps in found.items()}
    return {"ratio": middle["ours"] / middle["trl"], "steps": found}


def main() -> None:
    """Measure both models, or with --worker one side of one."""
    parser = Parser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--steps", type=int, default=4, help="steps a turn, the first of which is not counted")
    parser.add_argument("--worker", nargs=3, metavar=("SIDE", "MODEL", "STEPS"), help="for the benchmark itself")
    parser.add_argument("--note", default="", help="a sentence on the machine, for the table")
    parser.add_argument("--out", type=path_flag, default=Path(__file__).parent / "out")
    given = parser.parse_args()
    if given.worker:
        import torch

        torch.set_num_threads(1)
        side, model, steps = given.worker
        print(json.dumps({"ours": ours, "trl": trl}[side](model, int(steps))))
        return
    record: dict[str, Any] = {"processor": _cpu_model(), "rounds": given.rounds, "trl": version("trl")}
    record["note"] = given.note
    record["models"] = {model: measure(model, given.rounds, given.steps) for model in PROMPTS}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "language_peers.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (given.out / "language_peers.md").write_text(render(record), encoding="utf-8")
    print(render(record))


if __name__ == "__main__":
    run_command(main)
