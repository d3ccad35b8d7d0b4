from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lm_helpers import small_config, tiny

from vaco.lm.learner import Learner, Round, group_advantages
from vaco.lm.sample import Responses, generate
from vaco.lm.terms import evaluate_logp, pieces_by_length, token_logp, token_terms, trimmed_terms

PROMPTS = ["1+2=", "12+34-5=", "7=", "100+200+300="]


def responses_of(seed: int = 0, samples: int = 4) -> Responses:
    return generate(tiny(), PROMPTS, samples=samples, new_tokens=8, generator=np.random.default_rng(seed))


def round_of(samples: int = 4, seed: int = 0) -> Round:
    responses = responses_of(samples=samples)
    rewards = torch.from_numpy(np.random.default_rng(seed).integers(0, 2, len(responses.tokens))).float()
    advantages = group_advantages(rewards.reshape(-1, samples), "grpo").reshape(-1)
    return Round(
        responses,
        rewards,
        advantages,
        torch.zeros(len(rewards), dtype=torch.int64),
        torch.zeros(len(rewards)),
        torch.arange(4),
    )


def test_group_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    for kind in ("grpo", "dr_grpo", "rloo"):
        found = group_advantages(rewards, kind)
        assert torch.equal(found[1], torch.zeros(4)) and torch.equal(found[2], torch.zeros(4))
        for row in (0, 3):
            values = rewards[row].tolist()
            mean = sum(values) / 4
            deviation = (sum((v - mean) ** 2 for v in values) / 3) ** 0.5
            for i, value in enumerate(values):
                others = (sum(values) - value) / 3
                expected = {
                    "grpo": (value - mean) / (deviation + 1e-6),
                    "dr_grpo": value - mean,
                    "rloo": value - others,
                }
                assert float(found[row, i]) == pytest.approx(expected[kind], abs=1e-6)


def test_pieces_hold_every_row_once_and_few_tokens() -> None:
    responses = responses_of(samples=20)
    pieces = pieces_by_length(responses, at_once=400)
    assert sorted(torch.cat(pieces).tolist()) == list(range(80)) and len(pieces) > 2
    lengths = responses.prompt_lengths + responses.response_lengths
    assert all(len(rows) * int(lengths[rows].max()) <= 400 for rows in pieces)


def test_pieces_change_neither_values_nor_gradients() -> None:
    responses = responses_of(samples=20)
    assert len(pieces_by_length(responses)) > 1
    gradients = []
    for function in (token_terms, trimmed_terms):
        loaded = tiny()
        logp = function(loaded.model, responses).logp
        (logp * torch.linspace(-1, 1, logp.numel()).reshape(logp.shape)).sum().backward()
        gradients.append((logp.detach(), [p.grad for p in loaded.model.parameters()]))
    assert torch.allclose(gradients[0][0], gradients[1][0], atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(gradients[0][1], gradients[1][1], strict=True))


def test_entropy_is_that_of_the_policy_at_every_response_token() -> None:
    responses, loaded = responses_of(samples=2), tiny()
    found = token_terms(loaded.model, responses).entropy
    with torch.no_grad():
        logits = loaded.model(input_ids=responses.tokens).logits
    assert found is not None and not found.requires_grad
    for row in range(len(found)):
        for step in range(found.shape[1]):
            expected = 0.0
            if step < int(responses.response_lengths[row]):
                for probability in logits[row, int(responses.prompt_lengths[row]) + step - 1].softmax(-1).tolist():
                    expected -= probability * math.log(probability)
            assert float(found[row, step]) == pytest.approx(expected, abs=1e-5)


def test_the_entropy_of_a_step_does_not_depend_on_who_wrote_its_tokens() -> None:
    """−log π of somebody else's tokens would, and rises with the lag."""
    batch = round_of()
    student = Learner(small_config(algorithm="ppo"), tiny().model)
    with torch.no_grad():
        terms = trimmed_terms(student.model, batch.responses)
    assert terms.entropy is not None
    diagnostics = student.step(batch, None, update=0)
    mean = float(terms.entropy.sum() / batch.responses.mask.sum())
    assert diagnostics["entropy"] == pytest.approx(mean, rel=1e-5)
    assert abs(mean + float(terms.logp.sum() / batch.responses.mask.sum())) > 1e-3  # the other estimate differs


@pytest.mark.parametrize(
    ("minibatches", "version", "update", "rounds"), [(4, 0, 0, 1), (4, 0, 3, 1), (4, 0, 4, 2), (4, 8, 18, 3)]
)
def test_staleness_in_rounds_counts_the_current_one(minibatches: int, version: int, update: int, rounds: int) -> None:
    learner = Learner(small_config(algorithm="a3po_rounds", minibatches=minibatches, updates=32), tiny().model)
    assert learner._staleness(torch.tensor([version]), update).tolist() == [rounds]
    steps = Learner(small_config(algorithm="a3po", minibatches=minibatches, updates=32), tiny().model)
    assert steps._staleness(torch.tensor([version]), update).tolist() == [update - version]


def test_without_backward_lag_a3po_in_rounds_is_ppo() -> None:
    batch = round_of()
    found = []
    for algorithm in ("ppo", "a3po_rounds"):
        model = tiny().model
        student = Learner(small_config(algorithm=algorithm, minibatches=4), model)
        for update in range(4):
            student.step(batch, None, update)
        found.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def surrogate_gradient(batch: Round, clip: float) -> list[torch.Tensor]:
    """PPO's loss written as usual, one token at a time, differentiated by PyTorch."""
    loaded = tiny()
    logp = token_logp(loaded.model, batch.responses)
    total = logp.new_zeros(())
    tokens = 0
    for row in range(len(logp)):
        for j in range(int(batch.responses.response_lengths[row])):
            ratio = (logp[row, j] - batch.responses.behaviour_logp[row, j]).exp()
            a = batch.advantages[row]
            total = total + torch.minimum(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a)
            tokens += 1
    (-total / tokens).backward()
    return [p.grad for p in loaded.model.parameters()]


def test_a_step_of_ppo_descends_the_clipped_surrogate() -> None:
    batch = round_of()
    # Another behaviour policy, or no ratio would leave 1 and the clip would be idle.
    noise = 0.4 * torch.randn(batch.responses.behaviour_logp.shape, generator=torch.Generator().manual_seed(0))
    behaviour = (batch.responses.behaviour_logp + noise * batch.responses.mask).float()
    batch = replace(batch, responses=replace(batch.responses, behaviour_logp=behaviour))
    expected = surrogate_gradient(batch, 0.2)
    for at_once in (16_384, 64):  # in one pass, and accumulated
        loaded = tiny()
        student = Learner(small_config(algorithm="ppo", max_grad_norm=1e9, tokens_at_once=at_once), loaded.model)
        diagnostics = student.step(batch, None, update=3)
        assert 0.05 < diagnostics["filtered_fraction"] == diagnostics["clip_fraction"]
        for found, wanted in zip((p.grad for p in loaded.model.parameters()), expected, strict=True):
            assert found is not None and torch.allclose(found, wanted, atol=1e-5)


def test_padding_never_enters_a_gradient() -> None:
    batch = round_of()
    gradients = []
    for garbage in (0, 7):
        tokens = batch.responses.tokens.clone()
        lengths = batch.responses.prompt_lengths + batch.responses.response_lengths
        tokens[torch.arange(tokens.shape[1]) >= lengths[:, None]] = garbage
        loaded = tiny()
        part = replace(batch, responses=replace(batch.responses, tokens=tokens))
        Learner(small_config(algorithm="vaco"), loaded.model).step(part, None, 0)
        gradients.append([p.grad.clone() for p in loaded.model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("algorithm", ["ppo", "vaco", "vaco_sequence", "spo", "decoupled", "a3po", "a3po_unweighted"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_every_filter_steps_at_both_levels(algorithm: str, level: str) -> None:
    batch = round_of()
    student = Learner(small_config(algorithm=algorithm, level=level), tiny().model)
    proximal = batch.responses.behaviour_logp + 0.1
    found = student.step(batch, proximal * batch.responses.mask, update=2)
    assert np.isfinite(list(found.values())).all() and found["staleness"] == 2.0


@pytest.mark.parametrize("algorithm", ["tba", "oapl", "dppo", "cispo", "tis", "none"])
def test_the_other_methods_step(algorithm: str) -> None:
    found = Learner(small_config(algorithm=algorithm), tiny().model).step(round_of(), None, update=0)
    assert np.isfinite(list(found.values())).all() and found["grad_norm"] > 0


def test_groups_of_equal_rewards_move_nothing() -> None:
    batch = round_of()
    batch = replace(batch, advantages=torch.zeros_like(batch.advantages))
    found = Learner(small_config(algorithm="ppo"), tiny().model).step(batch, None, 0)
    assert found["grad_norm"] == 0.0


def test_at_the_behaviour_policy_nothing_is_dropped() -> None:
    batch = round_of()
    logp = evaluate_logp(tiny().model, batch.responses)
    batch = replace(batch, responses=replace(batch.responses, behaviour_logp=logp))
    found = Learner(small_config(algorithm="vaco"), tiny().model).step(batch, None, 0)
    assert found["filtered_fraction"] == found["total_lag"] == 0.0
    assert found["ess"] == pytest.approx(1.0)
