"""Faults that users reported of other tools of this kind, each held where it could happen here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lm_helpers import SIZE, small_config, tiny
from test_lm_learner import round_of
from test_lm_model import save
from test_lm_train import same

from vaco import cli
from vaco.errors import UserError
from vaco.lm import rounds
from vaco.lm.config import BEFORE, LMConfig, build_lm, rebuild_lm
from vaco.lm.evaluate import verdicts
from vaco.lm.learner import Learner
from vaco.lm.model import LoadedModel, load_model
from vaco.lm.run import Run
from vaco.lm.sample import Responses, generate, response_texts
from vaco.lm.task import Problem, make_task
from vaco.lm.terms import token_logp, token_terms
from vaco.lm.tiers import load_lm_tier
from vaco.lm.train import train
from vaco.lm.weights import parameters
from vaco.objectives import tokens as rules
from vaco.objectives.filters import Samples
from vaco.objectives.tokens import REGRESSIONS, TOKEN_ALIASES, TOKEN_FILTERS, Tokens, parse_token_algorithm
from vaco.runs import checkpoint

PROMPTS = ["1+2=", "12+34-5=", "7="]


def saved(folder: Path, **generation: Any) -> LoadedModel:
    """A folder with the tiny model, whose generation configuration declares something, loaded."""
    save(folder, tiny(), pad_token="<pad>")
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | generation))
    return load_model(str(folder))


# --- One value assumed where a list is declared


def test_generation_stops_at_every_declared_end_as_transformers_does(tmp_path: Path) -> None:
    loaded = saved(tmp_path, eos_token_id=[2, 7, 11])
    assert loaded.tokenizer.end_ids == (2, 7, 11)
    responses = generate(loaded, PROMPTS, samples=16, new_tokens=12, generator=np.random.default_rng(0))
    last = []
    for row in range(len(responses.tokens)):
        ids = responses.response_tokens(row)
        assert not set(ids[:-1]) & {2, 7, 11}
        last.append(ids[-1])
    assert {7, 11} & set(last), "no response ended with one of the further ends, or this would say nothing"
    greedy = generate(loaded, PROMPTS, samples=1, new_tokens=12, generator=None)
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([loaded.tokenizer.encode(prompt)])
        theirs = loaded.model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]  # type: ignore[operator]
        assert greedy.response_tokens(row) == theirs.tolist()


def test_an_end_that_is_an_ordinary_token_is_no_part_of_the_text(tmp_path: Path) -> None:
    loaded = saved(tmp_path, eos_token_id=[2, 7])
    one = loaded.tokenizer.encode("12#3")
    for last, text in ((2, "1 2 # 3"), (7, "1 2 # 3"), (8, "1 2 # 3 5")):  # this tokenizer's decoder joins by spaces
        ids = torch.tensor([[*one, last]])
        responses = Responses(ids, torch.tensor([0]), torch.tensor([5]), torch.zeros(1, 5))
        assert response_texts(loaded, responses) == [text]


# --- Tokens that are none, and settings of the model's own


def test_padded_embeddings_are_never_sampled_and_have_no_probability(tmp_path: Path) -> None:
    source = tiny()
    source.model.resize_token_embeddings(64, mean_resizing=False)  # type: ignore[operator]
    with torch.no_grad():
        source.model.get_input_embeddings().weight[55:] = source.model.get_input_embeddings().weight[3:12]  # type: ignore
    save(tmp_path, source, pad_token="<pad>")
    loaded = load_model(str(tmp_path))
    responses = generate(loaded, PROMPTS, samples=200, new_tokens=4, generator=np.random.default_rng(0))
    assert int(responses.tokens.max()) < 55
    assert torch.allclose(token_logp(loaded.model, responses), responses.behaviour_logp, atol=1e-5)
    terms = token_terms(loaded.model, responses)
    assert terms.entropy is not None and bool(torch.isfinite(terms.entropy).all())
    terms.logp.sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in loaded.model.parameters() if p.grad is not None)


def test_a_models_own_sampling_settings_are_named(tmp_path: Path) -> None:
    assert saved(tmp_path / "plain").unused == ()
    own = saved(tmp_path / "own", do_sample=True, temperature=0.7, top_p=0.8, repetition_penalty=1.1)
    assert own.unused == ("temperature=0.7", "top_p=0.8", "repetition_penalty=1.1")
    said: list[str] = []
    train(small_config(model=str(tmp_path / "own"), model_options="{}"), tmp_path / "run", quiet=True, say=said.append)
    assert [s for s in said if "own sampling settings are not used (temperature=0.7, top_p=0.8," in s]


# --- A limit mistaken for an end


def answer(text: str, ended: bool) -> tuple[LoadedModel, Responses]:
    loaded = tiny()
    ids = loaded.tokenizer.encode(text) + [loaded.tokenizer.eos_id] * ended
    return loaded, Responses(torch.tensor([ids]), torch.tensor([0]), torch.tensor([len(ids)]), torch.zeros(1, len(ids)))


@pytest.mark.parametrize(("ended", "rule", "earned"), [(1, "no_reward", 1), (0, "no_reward", 0), (0, "judged", 1)])
def test_an_answer_that_was_cut_earns_what_the_setting_says(ended: int, rule: str, earned: float) -> None:
    """With reference 7, `#72` cut before its last character reads `#7`."""
    loaded, responses = answer("4,7#7", bool(ended))
    assert responses.cut(loaded.tokenizer.end_ids).tolist() == [not ended]
    task = make_task("chain_sum", {})
    assert verdicts(loaded, task, responses, [Problem("3+4=", "7", None)], rule) == [earned]


def test_cut_responses_are_counted_recorded_and_warned_of(tmp_path: Path) -> None:
    said: list[str] = []
    config = small_config(minibatches=2, new_tokens=2)
    train(config, tmp_path / "run", quiet=True, say=said.append)
    steps, evals = (pd.read_parquet(tmp_path / "run" / f"{name}.parquet") for name in ("phases", "evals"))
    assert (steps["cut_fraction"] > 0.5).all() and evals["cut_fraction"].between(0.5, 1).all()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["cut_share"] == pytest.approx(steps["cut_fraction"].mean(), abs=1e-6)
    (warning,) = (s for s in said if "were cut at new_tokens = 2, where they earn nothing" in s)
    assert "raise new_tokens" in warning
    run = Run(config)
    rounds.advance(run)
    assert run.round is not None
    ends = run.loaded.tokenizer.end_ids
    expected = [run.round.responses.response_tokens(row)[-1] not in ends for row in range(len(run.round.rewards))]
    assert run.round.responses.cut(ends).tolist() == expected


def test_the_tracked_runs_are_those_of_judged_cuts_and_keep_their_identity() -> None:
    """What they were made with is now said; the default is another run."""
    planned = {str(run.config.run_id) for run in load_lm_tier("lm_desk").runs}
    from vaco.archive import Archive

    archive = Archive(Path("results/lm_desk/archive"))
    assert planned == set(archive.entries) and len(planned) == 117
    for entry in archive.entries.values():
        assert rebuild_lm(entry.manifest["config"]).hash == entry.run.rpartition("-v")[0]
    assert build_lm(BEFORE).hash != LMConfig().hash


# --- Inputs outside configuration and code


def rows(count: int, shift: int = 0) -> str:
    made = [{"question": f"{i}+{i}=", "answer": f"#### {2 * i + shift}"} for i in range(count)]
    return "\n".join(json.dumps(row) for row in made)


@pytest.fixture
def folder_with_gsm8k(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LMConfig:
    """A task in a relative file and a model in a relative folder, whose tokenizer knows the instruction's words."""
    from vaco.lm.tasks import gsm8k

    monkeypatch.setattr(gsm8k, "INSTRUCTION", "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.jsonl").write_text(rows(60))
    save(tmp_path / "model", tiny(), pad_token="<pad>")
    options = {"path": "data.jsonl", "eval_share": 0.5}
    return small_config(
        task="gsm8k", task_options=options, model="model", model_options="{}", updates=4, eval_problems=4
    )


def interrupted(config: LMConfig, out: Path) -> None:
    """A run that has saved something and stopped."""
    from vaco.runs.preemption import Preempted

    class Stop(Exception):  # noqa: N818
        pass

    steps = 0
    advance = rounds.advance

    def some(*given: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 3:
            raise Stop
        return advance(*given)

    with pytest.MonkeyPatch.context() as patch, pytest.raises((Stop, Preempted)):
        patch.setattr("vaco.lm.train.rounds.advance", some)
        train(config, out, quiet=True, checkpoint_seconds=0)
    assert (out / "run.json").exists()


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("data.jsonl", "problems"),
        ("model/model.safetensors", "model weights"),
        ("model/tokenizer.json", "tokenizer files"),
    ],
)
def test_a_run_whose_inputs_changed_is_neither_continued_nor_complete(
    file: str, what: str, folder_with_gsm8k: LMConfig, tmp_path: Path
) -> None:
    config, out, done = folder_with_gsm8k, tmp_path / "run", tmp_path / "done"
    train(config, done, quiet=True)
    assert set(json.loads((done / "manifest.json").read_text())["inputs"]) == {
        *("problems", "model weights", "tokenizer files")
    }
    interrupted(config, out)
    before = (tmp_path / file).read_bytes()
    if file == "data.jsonl":
        (tmp_path / file).write_text(rows(60, shift=1))
    elif file.endswith("safetensors"):
        save(tmp_path / "model", tiny(seed=1), pad_token="<pad>")
    else:
        (tmp_path / file).write_text(json.dumps(json.loads(before), indent=3))
    for folder, kind in ((out, "an unfinished run"), (done, "a finished run")):
        with pytest.raises(UserError, match=f"{kind} with another content of its {what}.*put back what it was"):
            train(config, folder, quiet=True)
    (tmp_path / file).write_bytes(before)
    said: list[str] = []
    train(config, done, quiet=True, say=said.append)
    train(config, out, quiet=True, say=said.append)
    assert "nothing to do" in said[0] and "resuming" in " ".join(said)
    assert same(done, out)


def test_relative_paths_start_where_the_run_was_started(
    folder_with_gsm8k: LMConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = folder_with_gsm8k
    train(config, tmp_path / "whole", quiet=True)
    interrupted(config, tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    train(config, tmp_path / "run", quiet=True)
    assert same(tmp_path / "whole", tmp_path / "run")
    assert str(tmp_path) not in (tmp_path / "run" / "manifest.json").read_text()
    assert cli.run(["lm", "evaluate", "--run", str(tmp_path / "run"), "--problems", "4"]) == 0
    # Moved together, they still find each other; apart, the run that asks is named.
    shutil.move(tmp_path / "data.jsonl", tmp_path / "gone.jsonl")
    capsys.readouterr()
    assert cli.run(["lm", "evaluate", "--run", str(tmp_path / "run"), "--problems", "4"]) == 2
    said = capsys.readouterr().err
    assert f"the run {tmp_path / 'run'} cannot be opened here, since the problems" in said and said.count("\n") == 1


def test_a_warm_start_with_other_weights_is_noticed(tmp_path: Path) -> None:
    from vaco.lm.warm import save_warm_start

    config = small_config(warm_target=0.3)
    for name, seed in (("a", 0), ("b", 1)):
        save_warm_start(tmp_path / name, config, tiny(seed), {"warm_updates": 1.0, "warm_accuracy": 0.4})
    train(config, tmp_path / "run", warm=tmp_path / "a", quiet=True)
    with pytest.raises(UserError, match="another content of its warm start"):
        train(config, tmp_path / "run", warm=tmp_path / "b", quiet=True)
    train(config, tmp_path / "run", warm=tmp_path / "a", quiet=True)


# --- Settings that nothing reads


@pytest.mark.parametrize(
    ("algorithm", "given", "why"),
    [
        ("vaco", "temperature=0.7", "the algorithm 'vaco' does not read it"),
        ("vaco", "clip=0.3", "the algorithm 'vaco' does not read it"),
        ("ppo", "delta=1", "the algorithm 'ppo' does not read it"),
        ("decoupled", "ratio_cap=3", "the algorithm 'decoupled' does not read it"),
        ("ppo", "proximal_updates=2", "does not evaluate a proximal policy"),
        ("tba", "advantage=rloo", "fits rewards and reads no advantage"),
        ("vaco", "date=2020-01-01", "the model 'tiny' has no chat template"),
    ],
)
def test_what_an_algorithm_does_not_read_is_refused(
    algorithm: str, given: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--algorithm", algorithm, "--set", given, "--out", str(tmp_path / "run")]
    assert cli.run(["lm", "train", *flags]) == 2
    said = capsys.readouterr().err
    assert f"{given.split('=')[0]} is set to" in said and why in said and "leave it out" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [*TOKEN_ALIASES, *REGRESSIONS, *TOKEN_FILTERS])
def test_what_a_row_says_that_it_reads_is_what_changes_it(name: str) -> None:
    """Each number away from its default, at ratios far from 1: the verdict changes if and only if it is read."""
    algorithm = parse_token_algorithm(name)
    if algorithm.filter is None:
        assert algorithm.reads == {"temperature"}
        return
    source = torch.Generator().manual_seed(0)
    ratio, learner = (torch.rand(8, 40, generator=source) * 4 for _ in range(2))
    advantages, ones = torch.randn(8, 40, generator=source), torch.ones(8, 40)
    seen = Tokens(Samples(ratio, learner, advantages, ones), ones.long(), -3 * torch.rand(8, 40, generator=source))
    plain = LMConfig()
    for number, known in {k: v for k, v in {"delta": "filter.delta", "clip": "filter.clip"}.items()}.items():
        other = build_lm({number: 30.0}).token_settings
        same = torch.equal(
            algorithm.filter.function(seen, plain.token_settings).coefficient,
            algorithm.filter.function(seen, other).coefficient,
        )
        assert same == (known not in algorithm.reads), number
    for number in ("clip_high", "truncation", "divergence_limit", "ratio_cap", "dppo_cap", "temperature"):
        known = "filter.truncation" if number == "truncation" else number
        other = build_lm({number: 0.11}).token_settings
        same = torch.equal(
            algorithm.filter.function(seen, plain.token_settings).coefficient,
            algorithm.filter.function(seen, other).coefficient,
        )
        assert same == (known not in algorithm.reads), number


def test_a_tier_shares_a_setting_with_those_that_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    text = "tier: lm_t\ndescription: A.\nalgorithms: [ppo, vaco]\nminibatches: [1]\nlags: [1]\nseeds: [0]\n"
    Path("config/lm_t.yaml").write_text(text + "training: {updates: 8, delta: 0.5}\n")
    by_name = {run.name: run for run in load_lm_tier("lm_t").runs}
    assert by_name["vaco"].config.delta == 0.5 and by_name["ppo"].config.delta == 0.2
    assert not [word for word in by_name["ppo"].command if word.startswith("delta")]
    Path("config/lm_t.yaml").write_text(text + "training: {updates: 8, ratio_cap: 3}\n")
    with pytest.raises(UserError, match="no run reads ratio_cap"):
        load_lm_tier("lm_t")


# --- Limits that should coincide


def plain_rows() -> list[str]:
    """Every rule whose coefficient is A where no ratio has left 1."""
    return [name for name in (*TOKEN_ALIASES, *TOKEN_FILTERS)]


@pytest.mark.parametrize("name", plain_rows())
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_at_ratio_one_every_rule_gives_the_bits_of_the_advantage(name: str, level: str) -> None:
    source = torch.Generator().manual_seed(0)
    shape = (6, 5) if level == "token" else (6, 1)
    one, advantages = torch.ones(shape), torch.randn(shape, generator=source)
    for staleness in (0, 1, 7):
        seen = Tokens(Samples(one, one, advantages, one), torch.full(shape, staleness), -torch.rand(shape))
        verdict = parse_token_algorithm(name).filter
        assert verdict is not None
        found = verdict.function(seen, rules.DEFAULTS)
        assert torch.equal(found.coefficient, advantages) and bool(found.kept.all()) and not bool(found.triggered)


def weights_after(updates: int = 3, **changes: Any) -> torch.Tensor:
    run = Run(small_config(minibatches=1, lag=1, updates=updates, eval_points=1, **changes))
    for _ in range(updates):
        rounds.advance(run)
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


def test_at_k_and_n_of_one_all_rules_are_one_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits for all whose coefficient is ρA, whatever path they take; the others to the ratio's rounding.

    Generation and training round differently, so that ρ is 1 to within 1e-6 and not exactly.
    """
    from test_lm_train import Parity

    from vaco.lm import run as running

    made = running.make_task
    monkeypatch.setattr(running, "make_task", lambda *given: Parity(made(*given)))
    expected = weights_after(algorithm="ppo")
    assert not torch.equal(expected, torch.cat([p.detach().flatten() for p in Run(small_config()).model.parameters()]))
    exact = [
        "vaco",
        "vaco_sequence",
        "decoupled",
        "a3po",
        "a3po_rounds",
        "a3po_train_steps",
        "dppo",
        "cispo",
        "tis",
        "none",
    ]
    for name in [*exact, "tv_total", "tv_proximal", "centred_clip"]:
        assert torch.equal(weights_after(algorithm=name), expected), name
    for name in ("spo", "truncated", "a3po_unweighted", "proximal_clip", "spo_proximal"):
        assert torch.allclose(weights_after(algorithm=name), expected, atol=2e-5), name


@pytest.mark.parametrize("algorithm", ["ppo", "vaco", "tba"])
@pytest.mark.parametrize("at_once", [1, 40, 150])
def test_accumulation_in_pieces_of_any_size_gives_the_same_weights(algorithm: str, at_once: int) -> None:
    batch = round_of()
    found = []
    for size in (16_384, at_once):
        loaded = tiny()
        student = Learner(small_config(algorithm=algorithm, tokens_at_once=size, learning_rate=1e-4), loaded.model)
        diagnostics = [student.step(batch, None, update) for update in range(2)]
        found.append((torch.cat([p.detach().flatten() for p in loaded.model.parameters()]), diagnostics))
    assert torch.allclose(found[0][0], found[1][0], atol=2e-6)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5)


def test_groups_without_signal_count_in_no_share_that_says_what_acts() -> None:
    """Half the groups have equal rewards: a rule that drops everything it can drops all of what has a signal."""
    from dataclasses import replace

    batch = round_of(samples=4)
    advantages = batch.advantages.reshape(-1, 4).clone()
    advantages[: len(advantages) // 2] = 0.0
    batch = replace(batch, advantages=advantages.reshape(-1))
    lengths = batch.responses.response_lengths
    expected = float(lengths[batch.advantages != 0].sum() / lengths.sum())
    behaviour = (
        batch.responses.behaviour_logp - 2.0 * torch.sign(batch.advantages)[:, None]
    )  # all far on the outer side
    far = replace(batch, responses=replace(batch.responses, behaviour_logp=behaviour * batch.responses.mask))
    found = Learner(small_config(algorithm="ppo"), tiny().model).step(far, None, 0)
    assert found["signal_fraction"] == pytest.approx(expected) and 0 < expected < 1
    assert found["dropped_signal"] == 1.0 and found["filtered_fraction"] == pytest.approx(expected)
    none = replace(batch, advantages=torch.zeros_like(batch.advantages))
    found = Learner(small_config(algorithm="ppo"), tiny().model).step(none, None, 0)
    assert found["signal_fraction"] == found["dropped_signal"] == 0.0


def test_a_policy_keeps_its_record_of_where_it_started(folder_with_gsm8k: LMConfig, tmp_path: Path) -> None:
    train(folder_with_gsm8k, tmp_path / "run", quiet=True)
    arrays, meta = checkpoint.read(tmp_path / "run" / "policy.safetensors")
    assert meta["started_in"] == ".." and set(arrays) == set(parameters(tiny().model))
    assert SIZE["hidden"] in next(iter(arrays.values())).shape
