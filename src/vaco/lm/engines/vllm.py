"""A vLLM server as the engine, over HTTP, in an environment and a process of its own.

NOT RUN HERE: no machine that this package was made on has had a vLLM server. What is written follows vLLM's public
documentation, and is tested against a small server of the standard library that speaks the same messages. Used of it:

* ``POST /v1/completions`` with a prompt of token ids, ``n``, ``seed``, ``logprobs`` and ``return_token_ids`` (0.10.2);
* weights by the four phases of its weight transfer, ``/init_weight_transfer_engine``, ``/start_weight_update``,
  ``/update_weights``, ``/finish_weight_update``, between ``/pause`` and ``/resume``, with the backend `disk`, which
  reads a folder of safetensors that both sides see. The server must be started for it: ``VLLM_SERVER_DEV_MODE=1 vllm
  serve MODEL --weight-transfer-config '{"backend": "disk"}'``, as ``scripts/lm-gpu.sh`` does.

The server's log-probabilities are of the temperature 1 and no filter that are asked for, in its own arithmetic; what
they differ by from the learner's is measured as `mismatch`.
"""

from __future__ import annotations

import json
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaco.errors import UserError
from vaco.lm.config import LMConfig
from vaco.lm.lora import merged
from vaco.lm.model import LoadedModel
from vaco.lm.sample import Abandoned, Noise, Responses
from vaco.lm.weights import Lazy
from vaco.runs import checkpoint

URL, FOLDER = "VACO_VLLM_URL", "VACO_VLLM_FOLDER"
"""Environment variables: where the server is, and a folder that it sees under the same path. Neither is a setting,
since neither decides what a run is."""
_DEFAULT = "http://127.0.0.1:8000"
_SECONDS = 1800.0
_AT_ONCE = 64
"""Requests under way, of one prompt each; the server puts them into batches of its own."""
_BIAS = -100.0
"""The least that the API takes; for ids that stand for no token."""


class VllmEngine:
    """Speaks to a server that runs already.

    Args:
        loaded: the learner's model, whose weights the server is given, adapters added in.
        config: for messages.
    """

    def __init__(self, loaded: LoadedModel, config: LMConfig) -> None:
        self._loaded, self._name = loaded, config.model
        self._url = os.environ.get(URL, _DEFAULT).rstrip("/")
        self._scratch = tempfile.TemporaryDirectory(
            prefix="vaco-vllm-", dir=os.environ.get(FOLDER), ignore_cleanup_errors=True
        )
        self._version: int | None = None
        self._begun = False
        self._served = ""

    def load(self, version: int, named_parameters: Iterable[tuple[str, Tensor]]) -> None:
        """See `Engine.load`; the learner's model is read, under the names that it has without adapters."""
        if version == self._version:
            return
        folder = Path(self._scratch.name)
        with (folder / "model.safetensors").open("wb") as stream:
            checkpoint.write(stream, Lazy(dict(merged(self._loaded.model))), {"version": version})
        if not self._begun:
            self._post("/init_weight_transfer_engine", {"init_info": {}})
            self._begun = True
        self._post("/pause?mode=wait", {})
        try:
            self._post("/start_weight_update", {})
            self._post("/update_weights", {"update_info": {"path": str(folder)}})
            self._post("/finish_weight_update", {"weight_version": str(version)})
        finally:
            self._post("/resume", {})
        self._version = version

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        samples: int,
        new_tokens: int,
        seed: Noise,
        stop: Callable[[], bool] | None = None,
    ) -> Responses:
        """See `Engine.generate`; each prompt's own seed is drawn from `seed`."""
        self._served = self._served or self._model()
        drawn = (seed.random((len(prompt_ids) * samples, 1))[::samples, 0] * 2**31).astype(int)
        asked = [
            self._request(ids, samples, new_tokens, int(number)) for ids, number in zip(prompt_ids, drawn, strict=True)
        ]

        def ask(body: dict[str, Any]) -> list[tuple[list[int], list[float]]]:
            if stop is not None and stop():
                raise Abandoned
            return _read(self._post("/v1/completions", body), samples, new_tokens)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = [answer for found in pool.map(ask, asked) for answer in found]
        return _together(self._loaded, [ids for ids in prompt_ids for _ in range(samples)], answers)

    def close(self) -> None:
        """Leaves the server as it is."""

    def _request(self, ids: Sequence[int], samples: int, new_tokens: int, seed: int) -> dict[str, Any]:
        tokenizer = self._loaded.tokenizer
        body: dict[str, Any] = {
            **{"model": self._served, "prompt": list(ids), "n": samples, "max_tokens": new_tokens, "seed": seed},
            # Everything that could change the distribution, since the model's own settings are the server's defaults.
            **{"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
            **{"frequency_penalty": 0.0, "presence_penalty": 0.0, "logprobs": 1, "return_token_ids": True},
            "stop_token_ids": list(tokenizer.end_ids),
        }
        known = getattr(tokenizer, "missing_ids", None)
        missing = known(self._loaded.model.get_output_embeddings().out_features) if known else []  # type: ignore[operator]
        return body | ({"logit_bias": {str(number): _BIAS for number in missing}} if missing else {})

    def _model(self) -> str:
        """What the server calls its model."""
        try:
            return str(self._post("/v1/models", None)["data"][0]["id"])
        except (LookupError, TypeError):
            raise self._strange("names no model") from None

    def _post(self, path: str, body: dict[str, Any] | None) -> Any:
        """POST JSON and read JSON, or GET if there is no body.

        Raises:
            UserError: nobody answers, or refuses.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            said = " ".join(error.read().decode(errors="replace").split())[:300]
            raise self._strange(f"refused {path} with status {error.code}, {said or error.reason}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise UserError(
                f"no vLLM server answers at {self._url} ({reason}): start one, see scripts/lm-gpu.sh, or set {URL} to "
                "where it is"
            ) from None

    def _strange(self, what: str) -> UserError:
        return UserError(
            f"the server at {self._url} {what}: a vLLM server of '{self._name}' is expected, started with "
            'VLLM_SERVER_DEV_MODE=1 and --weight-transfer-config \'{"backend": "disk"}\''
        )


def _read(answer: Any, samples: int, new_tokens: int) -> list[tuple[list[int], list[float]]]:
    """Tokens and log-probabilities of the choices of one completion, in order.

    Raises:
        UserError: a field is missing, or lengths do not agree.
    """
    try:
        choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
        found = [
            ([int(number) for number in choice["token_ids"]], [float(v) for v in choice["logprobs"]["token_logprobs"]])
            for choice in choices
        ]
    except (LookupError, TypeError, ValueError):
        found = []
    if len(found) != samples or not all(0 < len(ids) == len(logp) <= new_tokens for ids, logp in found):
        raise UserError(
            f"a completion of the vLLM server does not hold {samples} responses with token_ids and their "
            "log-probabilities: use vLLM 0.10.2 or newer, which knows return_token_ids"
        )
    return found


def _together(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], answers: Sequence[tuple[list[int], list[float]]]
) -> Responses:
    """Responses as tensors on the learner's device."""
    device = next(loaded.model.parameters()).device
    rows = [[*prompt, *ids] for prompt, (ids, _) in zip(prompts, answers, strict=True)]
    tokens = np.full((len(rows), max(map(len, rows))), loaded.tokenizer.pad_id)
    logp = np.zeros((len(rows), max(len(ids) for ids, _ in answers)), np.float32)
    for row, (ids, (_, values)) in enumerate(zip(rows, answers, strict=True)):
        tokens[row, : len(ids)] = ids
        logp[row, : len(values)] = values
    return Responses(
        tokens=torch.from_numpy(tokens).to(device),
        prompt_lengths=torch.tensor([len(prompt) for prompt in prompts], device=device),
        response_lengths=torch.tensor([len(ids) for ids, _ in answers], device=device),
        behaviour_logp=torch.from_numpy(logp).to(device),
    )
