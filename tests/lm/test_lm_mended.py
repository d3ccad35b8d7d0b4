"""The learner where it is not the engine, whole responses, costs, and steps that cannot be made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lm_helpers import SIZE, small_config, tiny
from test_lm_learner import round_of
from test_lm_train import Parity
from torch.profiler import profile

from vaco.errors import UserError
from vaco.lm import learner, rounds, state, terms, warm
from vaco.lm import run as running
from vaco.lm.config import build_lm, rebuild_lm
from vaco.lm.learner import MOST_SKIPPED, Learner, Round
from vaco.lm.model import load_model
from vaco.lm.run import Run
from vaco.lm.sample import generate
from vaco.lm.task import make_task
from vaco.lm.terms import evaluate_logp, token_logp
from vaco.objectives.tokens import UNITS, describe_tokens, parse_token_algorithm
from vaco.runs import checkpoint

# --- The policy that generates and the learner


def half(**changes: Any) -> Run:
    """A run in bfloat16 whose engine rounds otherwise than the learner: many processors round both alike."""
    run = Run(small_config(precision="bfloat16", **changes))
    generate = run.engine.generate

    def rounded(*given: Any) -> Any:
        found = generate(*given)
        noise = torch.randn(found.mask.shape, generator=torch.Generator().manual_seed(0)) * found.mask
        return replace(found, behaviour_logp=found.behaviour_logp + 0.05 * noise)

    run.engine.generate = rounded
    return run


@pytest.mark.parametrize("algorithm", ["vaco", "ppo", "tis", "a3po"])
def test_in_half_precision_the_mismatch_is_no_forward_lag(algorithm: str) -> None:
    run = half(algorithm=algorithm, minibatches=2)
    first = rounds.advance(run)
    assert run.round is not None and run.proximal is not None
    assert torch.equal(run.proximal, run.round.aligned_logp)  # at K = 1, π_T is β as the learner computes it
    difference = run.proximal - run.round.responses.behaviour_logp
    assert float(difference.abs().max()) > 1e-4
    assert first["mismatch"] > 1e-4 and first["backward_lag"] == 0.0
    assert first["forward_lag"] < 0.02 * first["mismatch"]
    assert first["total_lag"] <= first["mismatch"] + first["backward_lag"] + first["forward_lag"] + 1e-6


def test_the_split_of_the_lag_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """With K = 3 each part is there; a loop over tokens, from log-probabilities that stand in the run."""
    made = running.make_task
    monkeypatch.setattr(running, "make_task", lambda *given: Parity(made(*given)))
    run = half(algorithm="vaco", minibatches=2, lag=3, updates=12, learning_rate=5e-3)
    for _ in range(7):
        row = rounds.advance(run)
    round_, proximal = run.round, run.proximal
    assert round_ is not None and proximal is not None and round_.aligned_logp is not None
    rows = rounds.rows_of(round_, 0, 1, run.config).tolist()
    sums, count = np.zeros(2), 0
    for i in rows:
        for j in range(int(round_.responses.response_lengths[i])):
            behaviour = float(round_.responses.behaviour_logp[i, j])
            engine = np.exp(float(round_.aligned_logp[i, j]) - behaviour)
            learner_ratio = np.exp(float(proximal[i, j]) - behaviour)
            sums += (abs(engine - 1) / 2, abs(learner_ratio - engine) / 2)
            count += 1
    assert (row["mismatch"], row["backward_lag"]) == pytest.approx(tuple(sums / count), rel=1e-4)
    assert min(row["mismatch"], row["backward_lag"]) > 1e-4


def test_tis_truncates_the_mismatch_at_k_of_one() -> None:
    batch = round_of()
    aligned = batch.responses.behaviour_logp + 0.3 * batch.responses.mask
    steps = [
        Learner(small_config(algorithm="tis", ratio_cap=cap), tiny().model)._coefficients(
            batch, batch.responses.behaviour_logp, aligned, 0
        )
        for cap in (1e6, 1.1)
    ]
    assert not torch.equal(steps[0].coefficient, steps[1].coefficient)


def test_in_float32_nothing_is_evaluated_and_identities_are_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(rounds, "evaluate_logp", never)
    run = Run(small_config(algorithm="vaco", minibatches=2))
    row = rounds.advance(run)
    assert row["mismatch"] == row["backward_lag"] == 0.0
    assert run.round is not None and run.round.aligned_logp is None
    # A run in bfloat16 of before took the learner for the engine: it is another run.
    known = {"level": "token", "cut_responses": "judged"}
    assert build_lm({**known, "precision": "bfloat16"}).hash != build_lm(known).hash


def test_a_run_in_half_precision_resumes_to_the_bit() -> None:
    def fresh() -> Run:
        return half(algorithm="ppo", minibatches=4, lag=2)

    whole, run = fresh(), fresh()
    for _ in range(6):
        rounds.advance(whole)
    for step in range(6):
        rounds.advance(run)
        if step % 2 == 0:
            arrays, meta = checkpoint.unpack(checkpoint.pack(state.arrays(run), state.facts(run)))
            run = fresh()
            state.restore(run, meta, arrays)
    for one, other in zip(whole.model.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(one, other)


# --- Units of staleness


def test_three_units_of_staleness_and_what_they_are_called() -> None:
    versions = torch.tensor([0, 4, 8, 12])
    expected = {"a3po": [14, 10, 6, 2], "a3po_rounds": [4, 3, 2, 1], "a3po_train_steps": [3, 2, 1, 1]}
    for name, ages in expected.items():
        config = small_config(algorithm=name, minibatches=4, updates=32)
        assert Learner(config, tiny().model)._staleness(versions, 14).tolist() == ages
        assert parse_token_algorithm(parse_token_algorithm(name).canonical).row == parse_token_algorithm(name).row
    assert len({parse_token_algorithm(name).row for name in expected}) == len(UNITS) == 3
    text = describe_tokens()
    assert all(meaning in text for _, meaning in UNITS.values())


# --- Whole responses and denominators


def gradient_of(loss: Callable[[torch.Tensor], torch.Tensor], batch: Round) -> list[torch.Tensor]:
    loaded = tiny()
    loss(token_logp(loaded.model, batch.responses)).backward()
    return [p.grad for p in loaded.model.parameters()]  # type: ignore[misc]


def shifted(batch: Round) -> Round:
    noise = 0.4 * torch.randn(batch.responses.behaviour_logp.shape, generator=torch.Generator().manual_seed(0))
    behaviour = (batch.responses.behaviour_logp + noise * batch.responses.mask).float()
    return replace(batch, responses=replace(batch.responses, behaviour_logp=behaviour))


@pytest.mark.parametrize("at_once", [16_384, 64])
def test_the_sequence_level_descends_gspos_loss(at_once: int) -> None:
    """GSPO as its paper writes it: a geometric mean of ratios, the clip of PPO, a mean over responses."""
    batch, clip = shifted(round_of()), 0.05
    lengths = batch.responses.response_lengths

    def loss(logp: torch.Tensor) -> torch.Tensor:
        total = logp.new_zeros(())
        for i, length in enumerate(lengths.tolist()):
            s = ((logp[i, :length] - batch.responses.behaviour_logp[i, :length]).sum() / length).exp()
            a = batch.advantages[i]
            total = total + torch.minimum(s * a, s.clamp(1 - clip, 1 + clip) * a)
        return -total / len(lengths)

    expected = gradient_of(loss, batch)
    config = small_config(algorithm="ppo", level="sequence", clip=clip, max_grad_norm=1e9, tokens_at_once=at_once)
    loaded = tiny()
    found = Learner(config, loaded.model).step(batch, None, 0)
    assert 0 < found["filtered_fraction"] < 1
    for parameter, wanted in zip(loaded.model.parameters(), expected, strict=True):
        assert parameter.grad is not None and torch.allclose(parameter.grad, wanted, atol=1e-5)


def test_a_constant_denominator_is_dr_grpos_loss() -> None:
    batch = shifted(round_of())
    count = len(batch.rewards) * 8

    def loss(logp: torch.Tensor) -> torch.Tensor:
        ratio = (logp - batch.responses.behaviour_logp).exp()
        return -(ratio * batch.advantages[:, None] * batch.responses.mask).sum() / count

    expected = gradient_of(loss, batch)
    config = small_config(algorithm="none", advantage="dr_grpo", denominator="constant", max_grad_norm=1e9)
    loaded = tiny()
    diagnostics = Learner(config, loaded.model).step(batch, None, 0)
    other = Learner(small_config(algorithm="none"), tiny().model).step(batch, None, 0)
    assert diagnostics["entropy"] == other["entropy"]  # a mean over tokens either way
    for parameter, wanted in zip(loaded.model.parameters(), expected, strict=True):
        assert parameter.grad is not None and torch.allclose(parameter.grad, wanted, atol=1e-5)


def test_what_was_called_sequence_is_now_the_product_under_the_same_identity() -> None:
    before = {"level": "sequence", "algorithm": "ppo"}
    assert rebuild_lm(before).level == "product"
    now = build_lm({**before, "cut_responses": "judged"})
    assert rebuild_lm(now.resolved()) == now and now.hash != rebuild_lm(before).hash


@pytest.mark.parametrize("refresh", [0, 8])
def test_decoupled_ppo_may_evaluate_its_proximal_policy_once_a_round(refresh: int) -> None:
    run = Run(small_config(algorithm="decoupled", minibatches=4, proximal_updates=refresh))
    rounds.advance(run)
    assert run.round is not None and run.proximal is not None
    first = run.proximal.clone()
    assert bool((first[run.round.responses.mask] < 0).all())
    for _ in range(3):
        rounds.advance(run)
    assert torch.equal(run.proximal, first)


# --- Memory and costs


def test_the_warm_start_in_pieces_gives_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task("chain_sum", {})
    problems = task.problems("train", range(40))
    found, sizes = [], []
    forward = warm.token_logp

    def counted(model: Any, responses: Any, logits_at_once: int) -> torch.Tensor:
        sizes.append(int(responses.tokens.numel()))
        return forward(model, responses, logits_at_once)

    monkeypatch.setattr(warm, "token_logp", counted)
    for at_once in (16_384, 150):
        loaded = tiny()
        loss = warm._imitate(loaded, warm.worked_batch(loaded, problems), at_once)
        found.append((loss, [p.grad for p in loaded.model.parameters()]))
    assert len(sizes) > 5 and max(sizes[1:]) <= 150 < sizes[0]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found[0][1], found[1][1], strict=True))


def full(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("vaco.lm.sample._generate_batch", r"lower generate_batch \(now 96\)"),
        ("vaco.lm.warm.token_logp", r"in the warm start: lower tokens_at_once \(now 16,384\)"),
    ],
)
def test_a_full_gpu_names_the_setting_that_helps(place: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, full)
    with pytest.raises(UserError, match=words):
        run = Run(small_config(warm_target=0.0 if "sample" in place else 0.5, generate_batch=96))
        rounds.advance(run)


def passes(algorithm: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[bool]:
    """Whether each forward pass of a step in pieces was with gradient."""
    found = []
    forward = learner.token_terms

    def noted(*given: Any, **named: Any) -> Any:
        found.append(torch.is_grad_enabled())
        return forward(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(learner, "token_terms", noted)
        patch.setattr(terms, "token_terms", noted)
        Learner(small_config(algorithm=algorithm, tokens_at_once=64, **changes), tiny().model).step(round_of(), None, 0)
    return found


def test_a_rule_that_looks_at_each_response_alone_needs_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for algorithm in ("ppo", "a3po", "cispo", "dppo", "vaco_sequence", "spo"):
        one = passes(algorithm, monkeypatch)
        assert all(one) and len(one) > 2, algorithm
    for algorithm in ("vaco", "tv_total", "tba", "oapl"):
        two = passes(algorithm, monkeypatch)
        assert two.count(True) == two.count(False) == len(one), algorithm


def casts(action: Callable[[], object]) -> int:
    """How often a matrix as large as one of the tiny model's is converted."""
    with profile(record_shapes=True) as found:
        action()
    sizes = [event.input_shapes[0] for event in found.events() if event.name == "aten::_to_copy" and event.input_shapes]
    return sum(size in ([64, 32], [32, 64], [32, 32], [55, 32]) for size in sizes)


def test_weights_are_cast_once_a_generation_and_not_at_every_token() -> None:
    loaded = load_model("tiny", dtype="bfloat16", size=SIZE)
    counts = [
        casts(lambda n=new: generate(loaded, ["1+2="], samples=3, new_tokens=n, generator=np.random.default_rng(0)))
        for new in (2, 12)
    ]
    assert counts[0] == counts[1] == 7 * SIZE["layers"] + 1
    before = evaluate_logp(loaded.model, generate(loaded, ["1+2="], samples=3, new_tokens=4, generator=None))
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.mul_(1.5)  # a copy that outlived its generation would hide this
    after = evaluate_logp(loaded.model, generate(loaded, ["1+2="], samples=3, new_tokens=4, generator=None))
    assert not torch.equal(before, after)


def test_a_step_with_a_gradient_that_is_not_finite_is_skipped_and_counted() -> None:
    batch = round_of()
    broken = replace(batch, advantages=batch.advantages.clone())
    broken.advantages[int(batch.advantages.abs().argmax())] = float("inf")
    loaded = tiny()
    student = Learner(small_config(algorithm="ppo"), loaded.model)
    before = [p.detach().clone() for p in loaded.model.parameters()]
    assert student.step(broken, None, 0)["skipped"] == 1.0
    assert all(torch.equal(a, b) for a, b in zip(before, loaded.model.parameters(), strict=True))
    assert student.step(batch, None, 1)["skipped"] == 0.0
    assert not all(torch.equal(a, b) for a, b in zip(before, loaded.model.parameters(), strict=True))
    with pytest.raises(UserError, match="not finite in 10 steps on end"):
        for update in range(MOST_SKIPPED):
            student.step(broken, None, update)


def test_activations_computed_again_give_the_same_bits_and_are_not_kept() -> None:
    batch, found, kept = round_of(), [], []
    for wanted in (False, True):
        loaded = tiny()
        held = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal held
            held += tensor.numel()
            return tensor

        student = Learner(small_config(algorithm="vaco", gradient_checkpointing=wanted), loaded.model)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            student.step(batch, None, 0)
        found.append([p.detach() for p in loaded.model.parameters()])
        kept.append(held)
        again = generate(loaded, ["1+2="], samples=3, new_tokens=6, generator=np.random.default_rng(0))
        assert torch.allclose(evaluate_logp(loaded.model, again), again.behaviour_logp, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert kept[1] < 0.5 * kept[0]
