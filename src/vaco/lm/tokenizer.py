"""Text to token ids and back: by character for the tiny model, and through transformers for all others."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any, Protocol

from vaco.errors import UserError

ALPHABET = string.digits + "+-*/=(),#.:?!' \n" + string.ascii_lowercase


class Tokenizer(Protocol):
    """What sampling and learning need of a tokenizer.

    `pad_id` may equal `eos_id` for a hub model: masks must come from lengths, never from ids.
    """

    @property
    def pad_id(self) -> int:
        """Id that fills short rows."""

    @property
    def eos_id(self) -> int:
        """Id that ends a response."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens added."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""

    def prompt(self, text: str) -> str:
        """The text as the model was taught to read a request, up to where its response starts."""


class CharTokenizer:
    """One token a character of a fixed alphabet."""

    pad_id, bos_id, eos_id = 0, 1, 2
    vocab_size = 3 + len(ALPHABET)

    def __init__(self) -> None:
        self._ids = {character: number for number, character in enumerate(ALPHABET, start=3)}

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens added.

        Raises:
            UserError: a character outside the alphabet.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            raise UserError(
                f"the tiny model's alphabet lacks the character {error.args[0]!r}: use a task in its digits, "
                "lower-case letters and signs, such as chain_sum with compact: true, or another model"
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; padding, start and end are left out.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        if any(not 0 <= number < self.vocab_size for number in ids):
            raise ValueError(f"ids go from 0 to {self.vocab_size - 1}")
        return "".join(ALPHABET[number - 3] for number in ids if number >= 3)

    def prompt(self, text: str) -> str:
        """The text itself."""
        return text


class HubTokenizer:
    """A tokenizer of transformers.

    Args:
        tokenizer: a `PreTrainedTokenizerBase`.
        name: the model's name, for messages.

    Raises:
        UserError: it has no padding or no end token.
    """

    def __init__(self, tokenizer: Any, name: str):
        self._tokenizer = tokenizer
        for kind, number in (("padding", tokenizer.pad_token_id), ("end", tokenizer.eos_token_id)):
            if number is None:
                key = "pad_token" if kind == "padding" else "eos_token"
                raise UserError(
                    f"the tokenizer of '{name}' has no {kind} token: name one as '{key}' in its tokenizer_config.json"
                )
        self.pad_id = int(tokenizer.pad_token_id)
        self.eos_id = int(tokenizer.eos_token_id)
        self.vocab_size = len(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, special tokens left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def prompt(self, text: str) -> str:
        """The text in the model's chat template, if it has one, up to where its response starts.

        Without a template the text starts as the model expects any text to start, with its token of beginning if it
        has one.
        """
        if not self._tokenizer.chat_template:
            begins = self._tokenizer.encode("1")[:1] == [self._tokenizer.bos_token_id]
            return f"{self._tokenizer.bos_token}{text}" if begins else text
        message = [{"role": "user", "content": text}]
        return str(self._tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
