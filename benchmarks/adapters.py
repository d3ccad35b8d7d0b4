"""What a gradient step costs with an adapter, beside the library's own loss, in one run and on one core.

    pip install -e '.[sb3,torchrl,trl]'     in an environment of its own
    python benchmarks/adapters.py           a minute or two; prints a table, writes out/adapters.{json,md}

The two of a pair take turns, and a step is timed whole: forward pass, loss, backward pass and, where the library's loop
has it, the optimizer. A library that is not installed is said to be not measured.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import torch

import vaco
from vaco.command import Parser, run_command
from vaco.paths import path_flag

Pair = tuple[Callable[[], Any], Callable[[], Any], int]
"""The library's own, the adapter's, and how many gradient steps one call makes."""


def bare() -> Pair:
    """The loss alone on 64 × 512 tokens, no model: PPO's clip in four lines of PyTorch, and `policy_loss`."""
    source = torch.Generator().manual_seed(0)
    old = -torch.rand(64, 512, generator=source)
    logp = (old + 0.1 * torch.randn(64, 512, generator=source)).requires_grad_()
    advantages, mask = torch.randn(64, 512, generator=source), torch.ones(64, 512)

    def plain() -> None:
        ratio = (logp - old).exp()
        gain = torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
        (-(gain * mask).sum() / mask.sum()).backward()  # type: ignore[no-untyped-call]

    def ours() -> None:
        given = {"behaviour_logp": old, "learner_logp": old, "advantages": advantages, "mask": mask}
        vaco.policy_loss(logp, **given)[0].backward()  # type: ignore[arg-type, no-untyped-call]

    return plain, ours, 1


def stable_baselines3() -> Pair:
    """One phase of `train` on 8 × 128 steps of CartPole, minibatch 256, 10 epochs: 40 gradient steps."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    from vaco.adapters.sb3 import VacoPPO

    options: dict[str, Any] = {"n_steps": 128, "batch_size": 256, "n_epochs": 10, "seed": 0, "device": "cpu"}
    models = [kind("MlpPolicy", make_vec_env("CartPole-v1", 8, seed=0), **options) for kind in (PPO, VacoPPO)]
    for model in models:
        model.learn(1024)
    return models[0].train, models[1].train, 40


def torchrl() -> Pair:
    """Loss and backward pass of one minibatch of 256 samples, networks with two layers of 64."""
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torch import nn
    from torchrl.modules import OneHotCategorical, ProbabilisticActor, ValueOperator
    from torchrl.objectives import ClipPPOLoss

    from vaco.adapters.torchrl import LEARNER, VacoLoss

    def layers(out: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, out))

    actor = ProbabilisticActor(
        TensorDictModule(layers(2), ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
        return_log_prob=True,
    )
    critic = ValueOperator(layers(1), in_keys=["observation"])
    data = TensorDict({"observation": torch.randn(256, 4)}, batch_size=[256])
    with torch.no_grad():
        data = critic(actor(data))
    data.set("advantage", torch.randn(256, 1))
    data.set("value_target", torch.randn(256, 1))
    data.set(LEARNER, data["action_log_prob"].clone())

    def step(loss: Any) -> Callable[[], None]:
        def run() -> None:
            found = loss(data)
            (found["loss_objective"] + found["loss_critic"] + found["loss_entropy"]).backward()

        return run

    return step(ClipPPOLoss(actor, critic)), step(VacoLoss(actor, critic)), 1


def trl() -> Pair:
    """Loss and backward pass of a micro-batch of 16 × 64 tokens on a Llama of 2 layers, 128 wide."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    from vaco.adapters.trl import VacoGRPOTrainer

    words = ["<pad>", "<eos>", *(f"w{i}" for i in range(998))]
    raw = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    folder = tempfile.mkdtemp()
    config: dict[str, Any] = {"per_device_train_batch_size": 16, "num_generations": 8, "max_completion_length": 64}
    config |= {"beta": 0.0, "num_iterations": 2, "report_to": "none", "use_cpu": True, "bf16": False}

    def step(kind: Any) -> Callable[[], None]:
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), pad_token_id=0, eos_token_id=1, **sizes))
        trainer = kind(
            model,
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=GRPOConfig(output_dir=folder, **config),
            train_dataset=Dataset.from_dict({"prompt": ["w1 w2"] * 16}),
            processing_class=PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>"),
        )
        trainer.current_gradient_accumulation_steps = 1
        inputs = {
            "prompt_ids": torch.randint(2, 1000, (16, 8)),
            "prompt_mask": torch.ones(16, 8, dtype=torch.long),
            "completion_ids": torch.randint(2, 1000, (16, 64)),
            "completion_mask": torch.ones(16, 64, dtype=torch.long),
            "advantages": torch.randn(16),
            "old_per_token_logps": torch.full((16, 64), -6.9),
            "num_items_in_batch": torch.tensor(1024.0),
        }

        def run() -> None:
            trainer._compute_loss(trainer.model, inputs).backward()

        return run

    return step(GRPOTrainer), step(VacoGRPOTrainer), 1


PAIRS: dict[str, tuple[str, Callable[[], Pair]]] = {
    "the loss alone, 64 × 512 tokens": ("torch", bare),
    "Stable-Baselines3, a phase of 40 steps of 256": ("stable-baselines3", stable_baselines3),
    "TorchRL, a step of 256": ("torchrl", torchrl),
    "TRL, a micro-batch of 16 × 64 tokens": ("trl", trl),
}


def spread(values: list[float]) -> dict[str, Any]:
    """The median of some numbers and their quartiles."""
    ordered, quarter = sorted(values), len(values) // 4
    return {"median": median(ordered), "quartiles": [ordered[quarter], ordered[-1 - quarter]]}


def measure(pair: Pair, rounds: int) -> dict[str, Any]:
    """Milliseconds of processor time a gradient step, medians over rounds in which the two take turns.

    Processor time, for the machine may have other work.
    """
    own, ours, steps = pair
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 3):
        for run, kept in zip((own, ours), times, strict=True):
            began = time.process_time()
            run()
            if turn >= 3:  # the first few warm caches up
                kept.append((time.process_time() - began) / steps * 1000)
    pairs = list(zip(*times, strict=True))
    return {
        "own_ms": spread(times[0]),
        "adapter_ms": spread(times[1]),
        "more_ms": spread([b - a for a, b in pairs]),
        "ratio": spread([b / a for a, b in pairs]),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure every pair whose library is installed."""
    parser = Parser(prog="adapters.py", description="What a gradient step costs with an adapter.")
    parser.add_argument("--out", type=path_flag, default=Path(__file__).parent / "out", metavar="DIR")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows, load = [], [os.getloadavg()[0]]
    for name, (package, make) in PAIRS.items():
        try:
            row: dict[str, Any] = {"what": name, "package": package, "version": metadata.version(package)}
        except metadata.PackageNotFoundError:
            row = {"what": name, "package": package, "not_measured": "not installed"}
        else:
            row |= measure(make(), options.rounds)
        rows.append(row)
        load.append(os.getloadavg()[0])
        print(table([row]).splitlines()[-1], flush=True)
    machine: dict[str, Any] = {"python": platform.python_version(), "torch": torch.__version__, "cores": 1}
    machine |= {"rounds": options.rounds, "of_cores": os.cpu_count(), "load": [min(load), max(load)]}
    options.out.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"machine": machine, "rows": rows}, indent=1, ensure_ascii=False) + "\n"
    (options.out / "adapters.json").write_text(content, encoding="utf-8")
    (options.out / "adapters.md").write_text(table(rows) + "\n" + conditions(machine), encoding="utf-8")
    return 0


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for people."""
    lines = [
        "| a gradient step, ms of processor time | version | own loss | `vaco` | more | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "not_measured" in row:
            lines.append(f"| {row['what']} | – | not measured: {row['not_measured']} | | | |")
            continue
        cells = [
            f"{row[name]['median']:.2f} ({row[name]['quartiles'][0]:.2f} to {row[name]['quartiles'][1]:.2f})"
            for name in ("own_ms", "adapter_ms", "more_ms", "ratio")
        ]
        lines.append(f"| {row['what']} | {row['package']} {row['version']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def conditions(machine: dict[str, Any]) -> str:
    """What else the machine did, in a sentence."""
    low, high = machine["load"]
    return (
        f"Medians, with quartiles, of {machine['rounds']} rounds in which the two of a pair take turns. The machine of "
        f"{machine['of_cores']} cores had other work: a load average of {low:.0f} to {high:.0f}.\n"
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
    run_command(main)
