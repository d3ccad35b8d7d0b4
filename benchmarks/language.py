"""Language models: tokens a second of generation and of a gradient step, against the plain way, on one core.

    python benchmarks/language.py                 about two minutes; writes out/language.json

Generation is compared with `generate` of transformers on the same prompts, sampling at temperature 1 with its own KV
cache, padded on the left; the gradient step with a plain one: every row padded to prompt plus longest response, logits
of every place, PPO's clipped loss by autograd. Both sides use the same model, take turns, and count the same tokens:
those of the responses. The ratio is of medians over the turns.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np
import torch

from vaco.command import Parser, run_command
from vaco.lm.config import LMConfig
from vaco.lm.learner import Learner, Round, group_advantages
from vaco.lm.model import LoadedModel, load_model
from vaco.lm.sample import Responses, generate
from vaco.lm.task import make_task
from vaco.lm.terms import evaluate_logp
from vaco.lm.tiers import load_lm_tier
from vaco.lm.warm import warm_start
from vaco.paths import path_flag


def plain_generate(loaded: LoadedModel, prompts: list[str], samples: int, new_tokens: int) -> int:
    """`generate` of transformers; returns the response tokens."""
    pad, eos = loaded.tokenizer.pad_id, loaded.tokenizer.eos_id
    encoded = [loaded.tokenizer.encode(prompt) for prompt in prompts]
    longest = max(map(len, encoded))
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in encoded])
    out = loaded.model.generate(
        input_ids=ids,
        attention_mask=(torch.arange(longest) >= torch.tensor([longest - len(r) for r in encoded])[:, None]).long(),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_return_sequences=samples,
        max_new_tokens=new_tokens,
        pad_token_id=pad,
        eos_token_id=eos,
    )[:, longest:]
    ended = (out == eos).cumsum(1).cumsum(1)
    return int((ended <= 1).sum())


def plain_step(loaded: LoadedModel, optimizer: torch.optim.Optimizer, batch: Round, width: int) -> None:
    """A gradient step as one would first write it."""
    responses = batch.responses
    tokens = torch.nn.functional.pad(responses.tokens, (0, width - responses.tokens.shape[1]))
    ends = responses.prompt_lengths + responses.response_lengths
    places = torch.arange(width)
    logits = loaded.model(input_ids=tokens, attention_mask=(places < ends[:, None]).long()).logits
    logp = logits[:, :-1].log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
    mask = (places[1:] >= responses.prompt_lengths[:, None]) & (places[1:] < ends[:, None])
    behaviour = torch.zeros_like(logp)
    behaviour[mask] = responses.behaviour_logp[responses.mask]
    ratio = ((logp - behaviour) * mask).exp()
    a = batch.advantages[:, None]
    loss = -(torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a) * mask).sum() / mask.sum()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(loaded.model.parameters(), 1.0)
    optimizer.step()


def minibatch(config: LMConfig, responses: Responses) -> Round:
    """A minibatch with random rewards: what is timed does not depend on them."""
    rewards = torch.from_numpy(np.random.default_rng(0).integers(0, 2, len(responses.tokens))).float()
    advantages = group_advantages(rewards.reshape(-1, config.samples), "grpo").reshape(-1)
    zeros = torch.zeros(len(rewards))
    return Round(responses, rewards, advantages, zeros.long(), zeros, torch.arange(config.prompts))


def turns(functions: dict[str, Callable[[], int]], count: int) -> dict[str, Any]:
    """Tokens a second of each function, which take turns."""
    rates: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(count + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            tokens = function()
            if turn:  # the first turn warms up
                rates[name].append(tokens / (time.perf_counter() - started))
    return {name: {"median": median(r), "low": min(r), "high": max(r)} for name, r in rates.items()}


def main() -> None:
    """Measure and write."""
    parser = Parser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--out", type=path_flag, default=Path(__file__).parent / "out" / "language.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = load_lm_tier("lm_desk").warm
    task = make_task(config.task, config.task_settings)
    loaded = load_model(config.model, size=config.model_settings)
    warm_start(config, loaded, task, quiet=False)  # an untrained model writes responses of no realistic length
    problems = task.problems("train", range(config.prompts))
    prompts = [problem.prompt for problem in problems]
    source = np.random.default_rng(0)

    def ours() -> int:
        drawn = generate(loaded, prompts, samples=config.samples, new_tokens=config.new_tokens, generator=source)
        return int(drawn.response_lengths.sum())

    generation = turns(
        {
            "ours": ours,
            "transformers": lambda: plain_generate(loaded, prompts, config.samples, config.new_tokens),
        },
        given.turns,
    )
    responses = generate(loaded, prompts, samples=config.samples, new_tokens=config.new_tokens, generator=source)
    batch, tokens = minibatch(config, responses), int(responses.response_lengths.sum())
    width = int(responses.prompt_lengths.max()) + config.new_tokens
    # Steps so small that the model, and with it the work, stays the same over the turns.
    learner = Learner(replace(config, learning_rate=1e-9), loaded.model)
    plain = torch.optim.AdamW(loaded.model.parameters(), lr=1e-9)

    def step() -> int:
        learner.step(batch, None, 0)
        return tokens

    def naive() -> int:
        plain_step(loaded, plain, batch, width)
        return tokens

    training = turns({"ours": step, "plain": naive}, given.turns)
    recompute = turns({"proximal": lambda: (evaluate_logp(loaded.model, responses), tokens)[1]}, given.turns)
    record = {
        "parameters": sum(p.numel() for p in loaded.model.parameters()),
        "rows": config.prompts * config.samples,
        "turns": given.turns,
        "tokens_per_second": {"generation": generation, "training": training, **recompute},
        "ratios": {
            "generation": generation["ours"]["median"] / generation["transformers"]["median"],
            "training": training["ours"]["median"] / training["plain"]["median"],
        },
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps(record["ratios"], indent=2))


if __name__ == "__main__":
    run_command(main)
