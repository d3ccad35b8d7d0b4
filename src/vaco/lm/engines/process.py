"""An engine in a process of its own: the same model, in a precision of its own.

The process is this module, run with ``python -m``. Messages go through its standard input and output: eight bytes of
length, then the bytes of a checkpoint, which holds arrays and JSON, is checksummed, and runs no code when read. Weights
go through a file, written and read one array at a time. With the learner's precision its responses are those of the
engine `local`, bit for bit, since the uniform numbers that choose every token are drawn by the learner.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from vaco.errors import UserError
from vaco.lm.config import LMConfig
from vaco.lm.engines import pulse
from vaco.lm.model import LoadedModel, Spec, load_spec
from vaco.lm.sample import Abandoned, Noise, Responses, as_arrays, from_arrays, generate_ids
from vaco.lm.tokenizer import Chat
from vaco.lm.weights import Lazy, set_parameters
from vaco.runs import checkpoint, silence
from vaco.runs.threads import one_thread

Message = tuple[dict[str, Any], dict[str, Any]]
_PATIENCE = 0.2
"""Seconds between two looks at whether to stop."""


class ProcessEngine:
    """Starts the process when it is first needed, and ends it with the run.

    Args:
        spec: how the process loads the model.
        loaded: the learner's model, for the device of what is returned.
        config: its `engine_precision`, and `lag`, the number of policies that are kept.
    """

    def __init__(self, spec: Spec, loaded: LoadedModel, config: LMConfig) -> None:
        own = config.engine_precision
        self._spec = spec if own == "same" else replace(spec, dtype=own)
        self._device = next(loaded.model.parameters()).device
        self._batch, self._capacity = config.generate_batch, config.lag
        self._child: subprocess.Popen[bytes] | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="vaco-engine-", ignore_cleanup_errors=True)
        self._held: deque[int] = deque()
        self._version: int | None = None
        self._end: Callable[[], object] = lambda: None
        self._watch: pulse.Watch | None = None

    def load(self, version: int, named_parameters: Iterable[tuple[str, Tensor]]) -> None:
        """See `Engine.load`; what was given before is not taken again."""
        if version not in self._held:
            with self._file(version).open("wb") as stream:
                checkpoint.write(stream, Lazy(dict(named_parameters)), {"version": version})
            self._held.append(version)
        while len(self._held) > self._capacity:
            self._file(self._held.popleft()).unlink(missing_ok=True)
        self._version = version

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        samples: int,
        new_tokens: int,
        seed: Noise,
        stop: Callable[[], bool] | None = None,
    ) -> Responses:
        """See `Engine.generate`."""
        if self._version is None:
            raise RuntimeError("an engine needs weights before it generates")
        child = self._started()
        assert child.stdin is not None and child.stdout is not None
        order = {
            "samples": samples,
            "new_tokens": new_tokens,
            "batch": self._batch,
            "prompts": list(map(list, prompt_ids)),
        }
        order["weights"] = str(self._file(self._version))
        uniforms = seed.random((len(prompt_ids) * samples, new_tokens))
        try:
            send(child.stdin, {"uniforms": uniforms}, order)
            while not select.select([child.stdout], [], [], _PATIENCE)[0]:
                if stop is not None and stop():
                    self.close()
                    raise Abandoned
            arrays, answer = receive(child.stdout)
        except (OSError, EOFError, checkpoint.DamagedError):
            code = child.wait()
            how = (
                f"gave no sign of life for {silence.SILENCE:g} seconds"
                if self._watch and self._watch.hung
                else f"ended (exit code {code})"
            )
            self.close()
            raise UserError(f"the process that generates {how}: run the same command again") from None
        if "error" in answer:
            raise UserError(answer["error"])
        return from_arrays(arrays, self._device)

    def close(self) -> None:
        """End the process; the weights stay."""
        self._end()
        self._child = None

    def _file(self, version: int) -> Path:
        return Path(self._scratch.name) / f"{version}.safetensors"

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            heard, written = os.pipe()
            threads = {"VACO_ENGINE_THREADS": str(torch.get_num_threads()), "VACO_ENGINE_PULSE": str(written)}
            # A dead learner closes the pipe, at which the process ends.
            self._child = subprocess.Popen(
                [sys.executable, "-m", __name__, json.dumps(asdict(self._spec))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[written],
                start_new_session=True,  # a signal for the learner is the learner's to answer
                env=os.environ | threads,
            )
            os.close(written)
            self._end = weakref.finalize(self, _finish, self._child)
            self._watch = pulse.Watch(self._child, heard)
        return self._child


def _finish(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout):
        with suppress(BrokenPipeError):  # of what was not sent
            if stream is not None:
                stream.close()


def send(stream: IO[bytes], arrays: dict[str, Any], content: dict[str, Any]) -> None:
    """Write one message."""
    data = checkpoint.pack(arrays, content)
    stream.write(len(data).to_bytes(8, "little") + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Message:
    """Read one message.

    Raises:
        EOFError: there is none.
        DamagedError: it is none.
    """
    size = int.from_bytes(stream.read(8), "little")
    if not size:
        raise EOFError
    return checkpoint.unpack(stream.read(size))


def main(words: Sequence[str]) -> None:
    """Load the model that the only argument describes, and answer messages until there are none."""
    # What libraries print must not come between messages.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    pulse.beat(int(os.environ["VACO_ENGINE_PULSE"]))
    described = json.loads(words[0])
    loaded = load_spec(Spec(**(described | {"chat": Chat(**described["chat"]) if described["chat"] else None})))
    held = ""
    with one_thread():
        torch.set_num_threads(int(os.environ.get("VACO_ENGINE_THREADS", "1")))
        while True:
            try:
                arrays, order = receive(sys.stdin.buffer)
            except EOFError:
                return
            try:
                if order["weights"] != held:
                    set_parameters(loaded.model, checkpoint.read(Path(order["weights"]))[0])
                    held = order["weights"]
                responses = _answer(loaded, order, arrays["uniforms"])
            except UserError as error:
                send(answers, {}, {"error": str(error)})
            else:
                send(answers, as_arrays(responses), {})


class _Drawn:
    """Uniform numbers that were drawn elsewhere."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def random(self, size: tuple[int, int]) -> Any:
        assert self._values.shape == size
        return np.asarray(self._values)


def _answer(loaded: LoadedModel, order: dict[str, Any], uniforms: Any) -> Responses:
    return generate_ids(
        loaded,
        order["prompts"],
        samples=order["samples"],
        new_tokens=order["new_tokens"],
        generator=_Drawn(uniforms),
        batch=order["batch"],
    )


if __name__ == "__main__":
    main(sys.argv[1:])
