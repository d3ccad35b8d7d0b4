"""TRL trains with VACO's rules; skipped where it is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import vaco
from vaco.errors import UserError

pytest.importorskip("trl", reason='needs TRL: pip install "vaco[trl]"')
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig

from vaco.adapters.trl import VacoGRPOTrainer

WORDS = ["<pad>", "<eos>", *"abcdefgh"]


def trainer(folder: Path, **options: Any) -> VacoGRPOTrainer:
    """A trainer of a tiny model that is rewarded for the letter a."""
    torch.manual_seed(0)
    raw = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), pad_token_id=0, eos_token_id=1, **sizes))

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [text.split().count("a") / 8 for text in completions]

    config = GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=16, num_generations=8, max_completion_length=8, beta=0.0,
        num_iterations=4, learning_rate=1e-2, max_steps=options.pop("steps", 8), report_to="none", use_cpu=True,
        logging_steps=1, save_strategy="no", disable_tqdm=True, bf16=False,
    )  # fmt: skip
    data = Dataset.from_dict({"prompt": ["b c", "d e", "f g", "h b"] * 16})
    return VacoGRPOTrainer(
        model, reward_funcs=reward, args=config, train_dataset=data, processing_class=tokenizer, **options
    )


@pytest.mark.parametrize("rule", ["vaco", "ppo", "spo", "dppo", "vaco_sequence", "tis"])
def test_the_gradient_is_the_rules(rule: str, tmp_path: Path) -> None:
    """What TRL differentiates, with advantages c/w, has the coefficients of `policy_loss`."""
    found = trainer(tmp_path, rule=rule, settings={"delta": 0.05})
    generator = torch.Generator().manual_seed(1)
    old = -3 * torch.rand(6, 5, generator=generator)
    logp = (old + 0.4 * torch.randn(6, 5, generator=generator)).requires_grad_()
    mask = torch.rand(6, 5, generator=generator) < 0.8
    advantages = torch.randn(6, generator=generator)
    found.current_gradient_accumulation_steps = 1
    inputs = {
        "prompt_ids": torch.zeros(6, 1, dtype=torch.long), "prompt_mask": torch.ones(6, 1, dtype=torch.long),
        "completion_ids": torch.zeros(6, 5, dtype=torch.long), "completion_mask": mask.long(),
        "advantages": advantages, "old_per_token_logps": old, "num_items_in_batch": mask.sum().float(),
    }  # fmt: skip
    parent = VacoGRPOTrainer.__mro__[1]
    with pytest.MonkeyPatch.context() as patch:
        entropy = torch.zeros(6, 5)
        patch.setattr(parent, "_get_per_token_logps_and_entropies", lambda *_, **__: (logp, entropy, None))
        scale = found.current_gradient_accumulation_steps / found.args.steps_per_generation
        loss = found._compute_loss(found.model, inputs)
    (gradient,) = torch.autograd.grad(loss, logp)
    leaf = logp.detach().clone().requires_grad_()
    wanted, _ = vaco.policy_loss(
        leaf, behaviour_logp=old, learner_logp=old, advantages=advantages[:, None].expand(6, 5), mask=mask, rule=rule,
        settings={"delta": 0.05},
    )  # fmt: skip
    (slope,) = torch.autograd.grad(wanted, leaf)
    torch.testing.assert_close(gradient * scale, slope, rtol=1e-4, atol=1e-6)
    assert inputs["advantages"] is advantages, "the caller's batch is used again in the next iteration"


def test_it_trains_and_learns(tmp_path: Path) -> None:
    found = trainer(tmp_path, steps=60)
    found.train()
    rows = [row for row in found.state.log_history if "reward" in row]
    assert rows[-1]["reward"] > 2 * rows[0]["reward"], [row["reward"] for row in rows]
    steps = [row for row in found.state.log_history if "vaco/forward_lag" in row]
    assert len(steps) == 60 and all(row["vaco/nonfinite"] == 0 for row in steps)
    assert max(row["vaco/trigger_fraction"] for row in steps) == 1.0, "the filter must have had something to do"


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    for options, message in (({"rule": "vacoo"}, "did you mean"), ({"rule": "a3po"}, "TRL does not keep")):
        with pytest.raises(UserError, match=message):
            trainer(tmp_path, **options)
