from __future__ import annotations

import numpy as np
import pytest
import torch
from lm_helpers import tiny

from vaco.errors import UserError
from vaco.lm.sample import Abandoned, Responses, as_arrays, from_arrays, generate, response_texts
from vaco.lm.terms import evaluate_logp, token_logp

PROMPTS = ["1+2=", "12+34-5=", "7=", "100+200+300=", "1+2=", "9-9="]


def drawn(samples: int = 3, new_tokens: int = 12, seed: int = 0, batch: int = 512) -> Responses:
    return generate(
        tiny(), PROMPTS, samples=samples, new_tokens=new_tokens, generator=np.random.default_rng(seed), batch=batch
    )


def by_hand(responses: Responses, row: int, pad_left: int = 0) -> list[float]:
    """Log-probabilities of one response from a plain forward pass over its own text, a token at a time."""
    loaded = tiny()
    p, r = int(responses.prompt_lengths[row]), int(responses.response_lengths[row])
    ids = responses.tokens[row, : p + r]
    padded = torch.cat([ids.new_full((pad_left,), loaded.tokenizer.pad_id), ids])[None]
    mask = torch.cat([torch.zeros(pad_left), torch.ones(p + r)])[None].long()
    places = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = loaded.model(input_ids=padded, attention_mask=mask, position_ids=places).logits[0].double()
    table = logits.log_softmax(-1)
    return [float(table[pad_left + p + j - 1, ids[p + j]]) for j in range(r)]


@pytest.mark.parametrize("pad_left", [0, 5])
def test_generation_and_a_fresh_forward_pass_agree(pad_left: int) -> None:
    responses = drawn()
    for row in range(len(responses.tokens)):
        expected = by_hand(responses, row, pad_left)
        found = responses.behaviour_logp[row, : len(expected)].tolist()
        assert found == pytest.approx(expected, abs=1e-5)


def test_training_log_probabilities_agree_with_generation_whatever_the_padding() -> None:
    loaded, responses = tiny(), drawn()
    wider = Responses(
        torch.nn.functional.pad(responses.tokens, (0, 7), value=loaded.tokenizer.pad_id),
        responses.prompt_lengths,
        responses.response_lengths,
        responses.behaviour_logp,
    )
    for version in (responses, wider):
        assert torch.allclose(token_logp(loaded.model, version), responses.behaviour_logp, atol=1e-5)
    assert torch.allclose(evaluate_logp(loaded.model, responses), responses.behaviour_logp, atol=1e-5)


def test_the_mask_covers_the_response_and_its_end_once() -> None:
    eos = tiny().tokenizer.eos_id
    responses = drawn(samples=8, new_tokens=20, seed=3)
    ended = 0
    for row in range(len(responses.tokens)):
        ids = responses.response_tokens(row)
        assert int(responses.mask[row].sum()) == len(ids) == int(responses.response_lengths[row])
        assert eos not in ids[:-1]
        ended += ids[-1] == eos
        assert ids[-1] == eos or len(ids) == 20
        assert (responses.behaviour_logp[row, : len(ids)] < 0).all()
        assert (responses.behaviour_logp[row, len(ids) :] == 0).all()
    assert ended > 5  # or the test would say nothing of ends


def test_batches_and_their_order_change_nothing() -> None:
    whole, pieces = drawn(), drawn(batch=3)
    assert torch.equal(whole.tokens, pieces.tokens)
    assert torch.allclose(whole.behaviour_logp, pieces.behaviour_logp, atol=1e-5)


def test_the_same_generator_repeats_the_bits() -> None:
    first, again, other = drawn(), drawn(), drawn(seed=1)
    assert torch.equal(first.tokens, again.tokens) and torch.equal(first.behaviour_logp, again.behaviour_logp)
    assert not torch.equal(first.tokens[:, :8], other.tokens[:, :8])


def test_prompts_stay_as_they_were() -> None:
    loaded, responses = tiny(), drawn(samples=2)
    for row in range(len(responses.tokens)):
        expected = loaded.tokenizer.encode(PROMPTS[row // 2])
        assert responses.tokens[row, : len(expected)].tolist() == expected
    assert len(response_texts(loaded, responses)) == 12


def test_greedy_takes_the_most_probable_token() -> None:
    loaded = tiny()
    responses = generate(loaded, PROMPTS, samples=1, new_tokens=4, generator=None)
    for row in range(len(PROMPTS)):
        p = int(responses.prompt_lengths[row])
        with torch.no_grad():
            logits = loaded.model(input_ids=responses.tokens[row : row + 1, :p]).logits[0, -1]
        assert int(responses.tokens[row, p]) == int(logits.argmax())


def test_sampling_follows_the_distribution() -> None:
    loaded = tiny()
    responses = generate(loaded, ["1+2="], samples=4000, new_tokens=1, generator=np.random.default_rng(0))
    with torch.no_grad():
        ids = torch.tensor([loaded.tokenizer.encode("1+2=")])
        expected = loaded.model(input_ids=ids).logits[0, -1].double().softmax(-1)
    counts = torch.bincount(responses.tokens[:, ids.shape[1]], minlength=len(expected)).double()
    error = (counts / 4000 - expected).abs()
    assert bool((error < 5 * (expected * (1 - expected) / 4000).sqrt() + 1e-3).all())


def test_a_context_too_short_is_refused_before_anything_is_generated() -> None:
    with pytest.raises(UserError, match="context"):
        generate(tiny(), ["1+" * 60 + "1="], samples=2, new_tokens=50, generator=None)


def test_generation_can_be_abandoned() -> None:
    asked = iter([False, True])
    with pytest.raises(Abandoned):
        generate(tiny(), PROMPTS, samples=2, new_tokens=3, generator=None, batch=4, stop=lambda: next(asked))


def test_arrays_and_back() -> None:
    responses = drawn()
    back = from_arrays(as_arrays(responses), torch.device("cpu"))
    assert torch.equal(back.tokens, responses.tokens) and torch.equal(back.behaviour_logp, responses.behaviour_logp)
