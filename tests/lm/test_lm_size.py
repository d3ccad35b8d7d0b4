"""What makes larger models fit: logits in pieces, adapters, several processes, checkpoints that stream; and epochs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_helpers import SIZE, small_config, tiny
from test_lm_learner import round_of

import vaco.lm.run as running
from vaco.errors import UserError
from vaco.lm import rounds, state
from vaco.lm import train as training
from vaco.lm.config import LM_DEFAULTS, LMConfig
from vaco.lm.export import export
from vaco.lm.learner import Learner, make_optimizer
from vaco.lm.model import load_model, load_spec
from vaco.lm.run import Run
from vaco.lm.sample import generate
from vaco.lm.terms import token_terms
from vaco.lm.train import Checkpoints, train
from vaco.lm.weights import parameters, trained
from vaco.runs import checkpoint
from vaco.runs.folder import RunFolder

# --- The output layer in pieces


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_logits_in_pieces_are_the_plain_ones(at_once: int) -> None:
    """Against a loop over tokens, and in gradients."""
    loaded, batch = tiny(), round_of()
    responses = batch.responses
    plain = token_terms(loaded.model, responses)
    pieces = token_terms(loaded.model, responses, logits_at_once=at_once)
    assert pieces.entropy is not None and plain.entropy is not None
    for row in range(len(responses.tokens)):
        end = int(responses.prompt_lengths[row] + responses.response_lengths[row])
        with torch.no_grad():
            logits = loaded.model(input_ids=responses.tokens[row : row + 1, :end]).logits[0].double()
        for step in range(int(responses.response_lengths[row])):
            place = int(responses.prompt_lengths[row]) + step
            probabilities = logits[place - 1].softmax(-1)
            chosen = probabilities[responses.tokens[row, place]]
            assert float(pieces.logp[row, step].detach()) == pytest.approx(float(chosen.log()), abs=1e-4)
            entropy = -sum(float(p) * np.log(float(p)) for p in probabilities if p > 0)
            assert float(pieces.entropy[row, step]) == pytest.approx(entropy, abs=1e-4)
    gradients = []
    for terms in (plain, pieces):
        loaded.model.zero_grad()
        (terms.logp * torch.arange(terms.logp.numel()).reshape(terms.logp.shape)).sum().backward()
        gradients.append(torch.cat([p.grad.reshape(-1) for p in loaded.model.parameters() if p.grad is not None]))
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-4 * float(gradients[0].abs().max()))


def test_logits_in_pieces_keep_nothing_of_the_size_of_the_vocabulary() -> None:
    """What the backward pass holds, by the tensors that autograd saves."""
    loaded, batch = tiny(), round_of()
    vocabulary = loaded.tokenizer.vocab_size
    most = {}
    for at_once in (0, 4):
        saved: list[int] = []

        def note(tensor: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            if tensor.dim() == 2 and tensor.shape[1] == vocabulary:
                saved.append(tensor.shape[0])
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            token_terms(loaded.model, batch.responses, logits_at_once=at_once)
        most[at_once] = max(saved, default=0)
    assert most[0] == int(batch.responses.response_lengths.sum()) and most[4] == 0


def test_steps_with_logits_in_pieces_move_the_model_alike() -> None:
    moved = []
    for at_once in (0, 5):
        loaded = tiny()
        Learner(small_config(logits_at_once=at_once), loaded.model).step(round_of(), None, 0)
        moved.append(parameters(loaded.model))
    assert all(np.allclose(moved[0][name], moved[1][name], atol=1e-6) for name in moved[0])


# --- Epochs


class Five:
    """A task of five problems."""

    def __init__(self, task: Any) -> None:
        self.task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def size(self, split: str) -> int | None:
        return 5 if split == "train" else None

    def problems(self, split: str, indices: Any) -> Any:
        ASKED.extend(indices if split == "train" else [])
        return self.task.problems(split, indices)


ASKED: list[int] = []


def test_an_epoch_asks_every_problem_once_and_a_run_resumes_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = running.make_task
    monkeypatch.setattr(running, "make_task", lambda *given: Five(made(*given)))
    config = small_config(problems="epochs", prompts=3, updates=10)
    ASKED.clear()
    run = Run(config)
    for _ in range(10):
        rounds.advance(run)
    whole = list(ASKED)
    assert all(sorted(whole[i : i + 5]) == [0, 1, 2, 3, 4] for i in range(0, 30, 5))
    assert len({tuple(whole[i : i + 5]) for i in range(0, 30, 5)}) > 1
    ASKED.clear()
    other = Run(config)
    for _ in range(4):
        rounds.advance(other)
    arrays, meta = checkpoint.unpack(checkpoint.pack(state.arrays(other), state.facts(other)))
    other = Run(config)
    state.restore(other, meta, arrays)
    for _ in range(6):
        rounds.advance(other)
    assert whole == ASKED


def test_epochs_of_a_task_without_end_are_refused() -> None:
    with pytest.raises(UserError, match="no end of problems"):
        Run(small_config(problems="epochs"))


# --- Adapters


@pytest.fixture
def peft() -> Any:
    return pytest.importorskip("peft", reason="the extra lora is not installed")


def test_adapters_begin_at_the_model_and_alone_are_trained(peft: Any, tmp_path: Path) -> None:
    config = small_config(lora_rank=2, learning_rate=0.05, warmup_updates=0)
    run, plain = Run(config), Run(small_config())
    first, same = rounds.advance(run), rounds.advance(plain)
    assert (first["reward"], first["entropy"]) == (same["reward"], same["entropy"])  # B = 0
    names = [name for name, _ in trained(run.model)]
    assert names and all(".lora_" in name for name in names)
    assert sum(value.size for value in parameters(run.model).values()) < 0.3 * sum(
        value.size for value in parameters(plain.model).values()
    )
    run.learner.step(round_of(), None, 1)  # rewards that differ, so that something moves
    base = dict(load_model("tiny", size=SIZE).model.named_parameters())
    for name, value in run.model.named_parameters():
        if ".lora_" not in name:
            assert torch.equal(value, base[name.replace(".base_layer", "")])
    # Exported, the adapters are in the weights.
    export(run.loaded, tmp_path / "out")
    opened = load_model(str(tmp_path / "out"))
    assert dict(opened.model.named_parameters()).keys() == base.keys()
    prompts = ["1+2=", "4+4="]
    texts = [
        generate(loaded, prompts, samples=4, new_tokens=8, generator=np.random.default_rng(0))
        for loaded in (run.loaded, opened)
    ]
    assert torch.equal(texts[0].tokens, texts[1].tokens)
    assert torch.allclose(texts[0].behaviour_logp, texts[1].behaviour_logp, atol=1e-5)
    untouched = generate(plain.loaded, prompts, samples=4, new_tokens=8, generator=np.random.default_rng(0))
    assert not torch.allclose(texts[0].behaviour_logp, untouched.behaviour_logp, atol=1e-5)


def resumed(config: LMConfig) -> list[str]:
    """Train six steps, and six with a restart after every second; the names of what was saved, once both agree."""
    whole, run = Run(config), Run(config)
    names: list[str] = []

    def advance(run: Run) -> None:
        rounds.advance(run)
        run.learner.step(round_of(), None, run.update)  # rewards that differ, so that something moves

    for _ in range(6):
        advance(whole)
    for step in range(6):
        advance(run)
        if step % 2 == 0:
            arrays, meta = checkpoint.unpack(checkpoint.pack(state.arrays(run), state.facts(run)))
            names += arrays
            run = Run(config)
            state.restore(run, meta, arrays)
    one, other = parameters(whole.model), parameters(run.model)
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert any(not np.array_equal(one[name], value) for name, value in parameters(Run(config).model).items())
    return names


def test_a_run_with_adapters_resumes_to_the_bit(peft: Any) -> None:
    names = resumed(small_config(lora_rank=2, minibatches=2, lag=2, learning_rate=0.02))
    assert all(".lora_" in name for name in names if name.startswith(("model.", "adam.", "buffer.")))


# --- Moments in 8 bits


@pytest.fixture
def bitsandbytes() -> Any:
    return pytest.importorskip("bitsandbytes", reason="the extra eight-bit is not installed")


def test_moments_in_8_bits_take_a_quarter_and_resume_to_the_bit(bitsandbytes: Any) -> None:
    wide = {"hidden": 128, "layers": 1, "heads": 2, "intermediate": 128}
    config = small_config(model_options=wide, optimizer="adamw_8bit", minibatches=2, learning_rate=0.02)
    assert any(name.endswith("|absmax1") for name in resumed(config))
    run, usual = Run(config), Run(small_config(model_options=wide, minibatches=2, learning_rate=0.02))

    def size(state: Any) -> int:
        """Bytes of the moments of the largest matrix, its scales among them but not the shared table of values."""
        kept = {name: value for name, value in state.items() if torch.is_tensor(value) and not name.startswith("qmap")}
        return sum(value.numel() * value.element_size() for value in kept.values() if value.dim())

    sizes = []
    for one in (run, usual):
        rounds.advance(one)
        sizes.append(max(size(state) for state in one.learner.optimizer.state.values()))
    assert sizes[0] < 0.27 * sizes[1]


def test_moments_in_8_bits_step_as_those_in_float32_to_their_rounding(bitsandbytes: Any) -> None:
    torch.manual_seed(0)
    values = torch.randn(64, 128)
    pair = [torch.nn.Parameter(values.clone()) for _ in range(2)]
    kinds = ("adamw", "adamw_8bit")
    made = [make_optimizer(small_config(optimizer=kind), [one]) for kind, one in zip(kinds, pair, strict=True)]
    for _ in range(8):
        gradient = torch.randn(64, 128)
        for parameter, optimizer in zip(pair, made, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved, apart = (pair[0] - values).abs(), (pair[0] - pair[1]).abs()
    assert moved.mean() > 0 and 0 < apart.mean() < 0.05 * moved.mean()


def test_adapters_are_drawn_from_their_own_seed(peft: Any) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    spec = small_config(lora_rank=2).spec("tiny")
    one, other = (parameters(load_spec(spec).model) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(np.array_equal(one[name], other[name]) for name in one)
    first = next(value for name, value in one.items() if ".lora_A." in name)
    bound = 1 / np.sqrt(SIZE["hidden"])
    assert 0.5 * bound < np.abs(first).max() <= bound


# --- Several processes

SHARED = """
import json, sys
from lm_helpers import small_config
from vaco.lm import rounds
from vaco.lm.parallel import here
from vaco.lm.run import Run
from vaco.lm.weights import parameters
import numpy as np
kept = {}
with here("cpu") as group:
    for name, changes in json.loads(sys.argv[1]).items():
        run = Run(small_config(**changes), group=group)
        rows = [rounds.advance(run) for _ in range(4)]
        kept[name] = {"rows": rows, "sum": float(sum(np.abs(v).sum() for v in parameters(run.model).values()))}
        kept[name]["logp"] = run.round.responses.behaviour_logp.sum().item()
    if group.first:
        print(json.dumps(kept))
"""
CASES: dict[str, dict[str, Any]] = {
    "vaco": {"algorithm": "vaco", "minibatches": 2, "delta": 1e-4, "learning_rate": 0.01},
    "pieces": {"algorithm": "ppo", "minibatches": 2, "tokens_at_once": 64, "learning_rate": 0.01},
    "older": {"algorithm": "decoupled", "minibatches": 2, "lag": 2, "learning_rate": 0.01, "prompts": 3},
}


def shared(processes: int) -> dict[str, Any]:
    """What the cases give in so many processes over gloo, each computed in all of them."""
    # Rewards by parity of length, as in the tests of training: an untrained model earns something.
    text = SHARED.replace("kept = {}", PARITY + "kept = {}")
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(here), *sys.path]),
        **{"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20_000 + os.getpid() % 20_000)},
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", text, json.dumps(CASES)],
            env=environment | ({"RANK": str(rank), "WORLD_SIZE": str(processes)} if processes > 1 else {}),
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    said = [process.communicate(timeout=120)[0] for process in started]
    assert all(process.returncode == 0 for process in started)
    found: dict[str, Any] = json.loads(said[0])
    assert all(not text for text in said[1:])
    return found


PARITY = """
import vaco.lm.run as running
from test_lm_train import Parity
made = running.make_task
running.make_task = lambda *given: Parity(made(*given))
"""


def test_two_processes_give_the_numbers_of_one() -> None:
    one, two = shared(1), shared(2)
    clocks = {"wall_seconds", "generate_seconds", "recompute_seconds", "update_seconds"}
    for case in CASES:
        assert one[case]["sum"] == pytest.approx(two[case]["sum"], rel=1e-5)
        assert one[case]["logp"] == pytest.approx(two[case]["logp"], rel=1e-5)
        for single, double in zip(one[case]["rows"], two[case]["rows"], strict=True):
            for name in single.keys() - clocks:
                assert single[name] == pytest.approx(double[name], rel=1e-3, abs=1e-6), (case, name)
        assert max(row["grad_norm"] for row in one[case]["rows"]) > 0.01
    assert any(row["triggered"] for row in one["vaco"]["rows"])  # a statistic of the whole minibatch


@pytest.mark.slow
def test_two_processes_train_a_run_of_one_folder(tmp_path: Path) -> None:
    """From the command line; stopped by a signal after the first checkpoint, and finished by the same command."""
    words = [sys.executable, "-m", "vaco", "lm", "train", "--quiet", "--checkpoint-seconds", "0"]
    settings = small_config(minibatches=2, lag=2, updates=12).resolved()
    own = {name: value for name, value in settings.items() if value != LM_DEFAULTS[name]}
    words += [f"--set={name}={value}" for name, value in own.items()] + ["--out", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(41_000 + os.getpid() % 10_000)}

    def start() -> list[subprocess.Popen[bytes]]:
        return [subprocess.Popen(words, env=environment | {"RANK": str(rank)}) for rank in range(2)]

    both = start()
    while not list((tmp_path / "run" / "checkpoints").glob("checkpoint-*")):
        assert all(process.poll() is None for process in both)
        time.sleep(0.05)
    both[1].send_signal(signal.SIGTERM)  # one is enough
    codes = [process.wait(timeout=120) for process in both]
    if codes != [0, 0]:  # it may have been faster
        assert codes == [75, 75]
        assert [process.wait(timeout=120) for process in start()] == [0, 0]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "complete" and manifest["learner_processes"] == 2
    config = small_config(minibatches=2, lag=2, updates=12)
    train(config, tmp_path / "alone", quiet=True)
    one, two = (checkpoint.read(tmp_path / name / "policy.safetensors")[0] for name in ("alone", "run"))
    assert all(np.allclose(one[name], two[name], atol=1e-4) for name in one)


# --- Checkpoints


def test_what_a_checkpoint_holds_is_not_copied() -> None:
    run = Run(small_config())
    rounds.advance(run)
    saved = state.arrays(run)
    name, value = next(iter(trained(run.model)))
    assert np.shares_memory(saved[f"model.{name}"], value.detach().numpy())


def test_writing_takes_a_twentieth_of_the_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a clock of our own, on which a checkpoint takes ten seconds and a step one."""
    now = [0.0]
    config = small_config(updates=8)

    def slow(*_: Any, **__: Any) -> None:
        now[0] += 10.0

    run = Run(config)
    with RunFolder(tmp_path / "run", config.run_id, config=config.resolved(), rebuild=lambda _: config) as folder:
        monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(training.checkpoint, "save", slow)
        saver, written = Checkpoints(folder, run, 5.0), []
        for step in range(2000):
            now[0] += 1.0
            if saver.due():
                saver.save()
                written.append(step)
        assert written[0] == 4 and len(written) >= 9
        assert 10.0 * (len(written) - 1) <= 0.05 * (now[0] - 15.0) + 10.0
        beats: list[float] = []
        monkeypatch.setattr(folder, "heartbeat", lambda: beats.append(now[0]))
        for _ in range(150):
            now[0] += 1.0
            saver.due()
        assert len(beats) >= 4  # also between checkpoints: a lock counts as dead after ten minutes


def test_policies_of_the_buffer_are_files_beside_the_checkpoints(tmp_path: Path) -> None:
    run = Run(small_config(minibatches=1, lag=3, updates=8), policies=tmp_path)
    other = Run(small_config(minibatches=1, lag=3, updates=8))
    for _ in range(6):
        first, second = rounds.advance(run), rounds.advance(other)
        assert first["entropy"] == second["entropy"]
    assert not [name for name in state.arrays(run) if name.startswith("buffer.")]
    assert len(list(tmp_path.iterdir())) == 6
    run.forget({2})
    assert {path.name for path in tmp_path.iterdir()} == {f"policy-{n:012d}.safetensors" for n in (2, 3, 4, 5)}


def test_a_finished_run_may_keep_no_policy(tmp_path: Path) -> None:
    config = small_config(updates=2, eval_points=1)
    train(config, tmp_path / "run", keep_policy=False, quiet=True)
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"manifest.json", "phases.parquet", "evals.parquet"}
    assert not (tmp_path / "run" / "policy.safetensors").exists()
    started = time.monotonic()
    train(config, tmp_path / "run", quiet=True)  # it is complete
    assert time.monotonic() - started < 5.0
