"""A finished policy as a folder that `from_pretrained` of transformers opens, with its tokenizer."""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path
from typing import Any

from vaco.errors import UserError
from vaco.lm.lora import adapted, merged
from vaco.lm.model import LoadedModel, quiet
from vaco.lm.tokenizer import ALPHABET, CharTokenizer
from vaco.runs import atomic


def export(loaded: LoadedModel, out: Path) -> None:
    """Write model and tokenizer, whole or not at all.

    Args:
        loaded: the policy.
        out: a new or empty folder.

    Raises:
        UserError: the folder holds something, or cannot be written.
    """
    out = out.expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} holds something that would be lost: give --out a new or empty folder")
    made = out.with_name(f".{out.name}.new")
    model: Any = loaded.model
    try:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # the writer has a bar of its own
            # Adapters are added in; without them these are the model's own weights.
            weights = dict(merged(model)) if adapted(model) else None
            model.save_pretrained(made, state_dict=weights, safe_serialization=True)
            _of_transformers(loaded).save_pretrained(made)
        if out.exists():
            out.rmdir()
        made.rename(out)
    except OSError as error:
        raise atomic.write_error(out, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _of_transformers(loaded: LoadedModel) -> Any:
    """The tokenizer as one of transformers; the character tokenizer is written out as such."""
    if not isinstance(loaded.tokenizer, CharTokenizer):
        return loaded.tokenizer.of_transformers  # type: ignore[attr-defined]
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["<pad>", "<bos>", "<eos>", *ALPHABET])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **special)
