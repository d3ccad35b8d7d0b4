"""Engines: the learner itself, a process of its own, and a vLLM server that a small server of our own stands in for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_helpers import SIZE, small_config, tiny
from test_lm_train import Parity

import vaco.lm.run as running
from vaco.errors import UserError
from vaco.lm import rounds
from vaco.lm.config import LMConfig
from vaco.lm.engines import Engine, make_engine, pulse
from vaco.lm.engines.vllm import FOLDER, URL
from vaco.lm.model import LoadedModel, load_model
from vaco.lm.run import Run
from vaco.lm.sample import Abandoned, encoded, generate, generate_ids
from vaco.lm.terms import evaluate_logp
from vaco.lm.weights import set_parameters, trained
from vaco.runs import checkpoint, silence

PROMPTS = ["1+2=", "12+3=", "4+4=", "1+1+1="]


def engine_of(name: str, loaded: LoadedModel, **changes: Any) -> Engine:
    config = small_config(engine=name, **changes)
    return make_engine(config, loaded, config.spec(config.model))


def noise(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- local and process


def test_local_is_what_generate_does() -> None:
    loaded = tiny()
    engine = engine_of("local", loaded)
    engine.load(0, trained(loaded.model))
    ours = engine.generate(encoded(loaded, PROMPTS), 3, 8, noise())
    plain = generate(loaded, PROMPTS, samples=3, new_tokens=8, generator=noise())
    assert torch.equal(ours.tokens, plain.tokens) and torch.equal(ours.behaviour_logp, plain.behaviour_logp)


def test_a_process_gives_the_bits_of_the_learner_and_knows_several_policies() -> None:
    """One process for all, since its start takes seconds: same bits, other weights, a policy of before, a refusal."""
    loaded, other = tiny(), tiny(seed=5)
    engine = engine_of("process", loaded, lag=2)
    ids = encoded(loaded, PROMPTS)
    try:
        for version, model in ((0, loaded), (7, other), (0, None)):
            engine.load(version, trained(model.model) if model else iter(()))  # what it knows is not taken again
            found = engine.generate(ids, 3, 8, noise(version))
            plain = generate(model or loaded, PROMPTS, samples=3, new_tokens=8, generator=noise(version))
            assert torch.equal(found.tokens, plain.tokens)
            assert torch.equal(found.behaviour_logp, plain.behaviour_logp)
        with pytest.raises(UserError, match="exceed the context"):
            engine.generate(ids, 3, 10_000, noise())
        with pytest.raises(Abandoned):
            engine.generate(ids * 200, 3, 100, noise(), stop=lambda: True)
        engine.load(7, trained(other.model))  # a new process takes it from the file
        again = engine.generate(ids, 3, 8, noise(7))
        assert torch.equal(again.tokens, generate(other, PROMPTS, samples=3, new_tokens=8, generator=noise(7)).tokens)
    finally:
        engine.close()


def test_a_process_of_other_precision_is_a_mismatch_that_the_diagnostics_name(monkeypatch: pytest.MonkeyPatch) -> None:
    made = running.make_task
    monkeypatch.setattr(running, "make_task", lambda *given: Parity(made(*given)))
    config = small_config(engine="process", engine_precision="bfloat16", minibatches=2)
    assert not config.exact and small_config(engine="process").exact
    run = Run(config)
    with torch.no_grad():
        for value in run.model.parameters():
            if value.dim() > 1:
                value.mul_(12.0)  # far from uniform, so that rounding shows
    try:
        first, second = rounds.advance(run), rounds.advance(run)
    finally:
        run.engine.close()
    assert first["mismatch"] > 1e-3 and first["backward_lag"] == 0.0
    assert first["forward_lag"] < 1e-5 < second["forward_lag"]
    assert run.round is not None and run.round.aligned_logp is not None
    assert torch.equal(run.round.aligned_logp, evaluate_logp(_model_of_round(run), run.round.responses))


def _model_of_round(run: Run) -> Any:
    """The model as it was when the round began."""
    fresh = Run(run.config)
    with torch.no_grad():
        for value in fresh.model.parameters():
            if value.dim() > 1:
                value.mul_(12.0)
    return fresh.model


def test_a_process_that_dies_is_one_sentence() -> None:
    loaded = tiny()
    engine = engine_of("process", loaded)
    engine.load(0, trained(loaded.model))
    child = engine._started()  # type: ignore[attr-defined]
    child.kill()
    child.wait()
    child.poll = lambda: None  # as if it died this very moment
    with pytest.raises(UserError, match="process that generates ended"):
        engine.generate(encoded(loaded, PROMPTS), 1, 2, noise())


def test_a_process_that_hangs_is_killed_and_another_generates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, it gives no sign of life, and would be waited for for ever."""
    loaded = tiny()
    engine = engine_of("process", loaded)
    engine.load(0, trained(loaded.model))
    expected = engine.generate(encoded(loaded, PROMPTS), 1, 2, noise())
    with monkeypatch.context() as shorter:
        shorter.setattr(silence, "SILENCE", 3.0)
        os.kill(engine._child.pid, signal.SIGSTOP)  # type: ignore[attr-defined]
        with pytest.raises(UserError, match="no sign of life"):
            engine.generate(encoded(loaded, PROMPTS), 1, 2, noise())
    again = engine.generate(encoded(loaded, PROMPTS), 1, 2, noise())
    assert torch.equal(again.tokens, expected.tokens)
    engine.close()


def test_only_silence_kills_and_a_slow_start_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "SILENCE", 2.0)
    starting = subprocess.Popen(["sleep", "3"])
    unused = os.pipe()
    watch = pulse.Watch(starting, unused[0])
    assert starting.wait() == 0 and not watch.hung, "it had not begun"
    heard, written = os.pipe()
    child = subprocess.Popen(["sleep", "60"])
    watch = pulse.Watch(child, heard)
    for _ in range(20):
        os.write(written, b".")
        time.sleep(0.2)
    assert child.poll() is None
    assert child.wait(timeout=20) == -signal.SIGKILL and watch.hung
    os.close(written)
    os.close(unused[1])


# --- vLLM


class Server(BaseHTTPRequestHandler):
    """Speaks of vLLM's API what the engine uses, with the tiny model, in the shapes of its public documentation."""

    model = load_model("tiny", seed=9, size=SIZE)
    seen: list[tuple[str, Any]] = []  # noqa: RUF012 (one server at a time)
    broken = ""
    lock = threading.Lock()

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._say(200, {"object": "list", "data": [{"id": "the-model", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            self.seen.append((self.path, body))
            if self.path == self.broken:
                self._say(500, {"error": "it is broken"})
            elif self.path == "/update_weights":
                (file,) = Path(body["update_info"]["path"]).glob("*.safetensors")
                set_parameters(self.model.model, checkpoint.read(file)[0])
                self._say(200, {"message": "Weights updated"})
            elif self.path == "/v1/completions":
                self._say(200, self._complete(body))
            else:
                self._say(200, {"message": "done"})

    def _complete(self, body: Any) -> Any:
        found = generate_ids(
            self.model,
            [body["prompt"]],
            samples=body["n"],
            new_tokens=body["max_tokens"],
            generator=noise(body["seed"]),
        )
        choices = []
        for row in range(body["n"]):
            ids = found.response_tokens(row)
            logp = found.behaviour_logp[row, : len(ids)].tolist()
            choice = {"index": row, "text": "", "finish_reason": "stop", "logprobs": {"token_logprobs": logp}}
            choices.append(choice | ({"token_ids": ids} if self.broken != "ids" else {}))
        return {"id": "cmpl-1", "object": "text_completion", "choices": choices[::-1]}

    def _say(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Server]]:
    Server.seen.clear()
    Server.broken = ""
    running = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv(URL, f"http://127.0.0.1:{running.server_port}/")
    monkeypatch.setenv(FOLDER, str(tmp_path))
    yield Server
    running.shutdown()
    thread.join()
    running.server_close()


def test_vllm_takes_the_weights_and_its_log_probabilities_are_of_them(server: type[Server]) -> None:
    loaded = tiny(seed=2)
    engine = engine_of("vllm", loaded)
    for _ in range(2):  # the second time it knows them
        engine.load(3, trained(loaded.model))
    found = engine.generate(encoded(loaded, PROMPTS), 4, 8, noise())
    assert [path for path, _ in server.seen[:6]] == [
        *("/init_weight_transfer_engine", "/pause?mode=wait", "/start_weight_update"),
        *("/update_weights", "/finish_weight_update", "/resume"),
    ]
    assert server.seen[4][1] == {"weight_version": "3"}
    asked = [body for path, body in server.seen if path == "/v1/completions"]
    assert len(asked) == len(PROMPTS) == len({body["seed"] for body in asked})
    assert all(
        body["model"] == "the-model" and body["temperature"] == 1.0 and body["return_token_ids"] for body in asked
    )
    # Row by row what the server drew from these seeds, in the prompts' order.
    ids = encoded(loaded, PROMPTS)
    for group, prompt in enumerate(ids):
        (seed,) = (body["seed"] for body in asked if body["prompt"] == prompt)
        plain = generate_ids(loaded, [prompt], samples=4, new_tokens=8, generator=noise(seed))
        for member in range(4):
            assert found.response_tokens(4 * group + member) == plain.response_tokens(member)
            assert int(found.prompt_lengths[4 * group + member]) == len(prompt)
    assert torch.allclose(found.behaviour_logp, evaluate_logp(loaded.model, found), atol=1e-5)
    engine.load(4, trained(loaded.model))
    assert [path for path, _ in server.seen].count("/init_weight_transfer_engine") == 1


def test_a_run_with_vllm(server: type[Server]) -> None:
    run = Run(small_config(engine="vllm", minibatches=2))
    rows = [rounds.advance(run) for _ in range(4)]
    assert not run.config.exact and all(row["mismatch"] < 1e-5 for row in rows)  # the stand-in computes in float32
    assert [body["weight_version"] for path, body in server.seen if path == "/finish_weight_update"] == ["0", "2"]


@pytest.mark.parametrize("broken", ["/update_weights", "/v1/completions", "ids"])
def test_what_the_server_refuses_is_one_sentence(broken: str, server: type[Server]) -> None:
    loaded = tiny()
    engine = engine_of("vllm", loaded)
    server.broken = broken
    with pytest.raises(UserError, match=r"return_token_ids|status 500, .*it is broken"):
        engine.load(0, trained(loaded.model))
        engine.generate(encoded(loaded, PROMPTS), 2, 4, noise())
    if broken == "/update_weights":
        assert server.seen[-1][0] == "/resume"  # whatever happens, it is not left paused


def test_no_server_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, "http://127.0.0.1:9")
    loaded = tiny()
    engine = engine_of("vllm", loaded)
    with pytest.raises(UserError, match=f"no vLLM server answers .* set {URL}"):
        engine.load(0, trained(loaded.model))


def test_generation_over_http_can_be_abandoned(server: type[Server]) -> None:
    loaded = tiny()
    engine = engine_of("vllm", loaded)
    engine.load(0, trained(loaded.model))
    with pytest.raises(Abandoned):
        engine.generate(encoded(loaded, PROMPTS), 2, 4, noise(), stop=lambda: True)


def test_engines_are_settings_that_leave_identities_alone() -> None:
    assert small_config().hash == small_config(engine="local", engine_precision="same").hash
    hashes = {small_config(engine=name).hash for name in ("local", "process", "vllm")}
    assert len(hashes) == 3
    assert "engine_precision" in LMConfig().unread and "engine_precision" not in small_config(engine="process").unread
