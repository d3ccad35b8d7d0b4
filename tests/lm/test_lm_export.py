"""A finished policy leaves as a folder that transformers opens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lm_helpers import small_config, tiny
from test_lm_model import save

from vaco import cli
from vaco.lm.model import load_model
from vaco.lm.train import train
from vaco.runs import checkpoint

TEXT = "12+34-5=?"


@pytest.mark.parametrize("local", [False, True])
def test_an_exported_policy_opens_with_from_pretrained(
    local: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save(tmp_path / "model", tiny(seed=3), pad_token="<pad>")
    own = {"model": str(tmp_path / "model"), "model_options": "{}"} if local else {}
    train(small_config(updates=2, **own), tmp_path / "run", quiet=True)
    command = ["lm", "export", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    capsys.readouterr()
    assert cli.run(command) == 0
    assert capsys.readouterr().err == f"{tmp_path / 'out'} holds the policy of {tmp_path / 'run'}\n"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    arrays, _ = checkpoint.read(tmp_path / "run" / "policy.safetensors")
    assert all(torch.equal(value, torch.from_numpy(arrays[name])) for name, value in model.named_parameters())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.encode(TEXT, add_special_tokens=False) == tiny().tokenizer.encode(TEXT)
    assert local or tokenizer.decode(tiny().tokenizer.encode(TEXT)) == TEXT
    again = load_model(str(tmp_path / "out"))
    assert again.tokenizer.end_ids == (2,) and again.context == 128
    assert cli.run(command) == 2
    assert "holds something that would be lost" in capsys.readouterr().err
    assert not list(tmp_path.glob(".out*"))
