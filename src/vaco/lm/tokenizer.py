"""Text to token ids and back: by character for the tiny model, and through transformers for all others."""

from __future__ import annotations

import contextlib
import datetime
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from vaco.errors import UserError

DATE = "2026-01-01"
"""What day chat templates see unless another is set."""
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
        """Id that is written to end a worked solution; one of `end_ids`."""

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Every id that ends a response."""

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
    end_ids = (2,)
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


@dataclass(frozen=True)
class Chat:
    """How a request is put into a model's chat template.

    Attributes:
        date: the day that a template sees as today, ISO 8601: the real one would make a run differ tomorrow.
        options: further variables of the template, such as ``enable_thinking``; ``chat_template`` is the name of one of
            several templates.
    """

    date: str = DATE
    options: Mapping[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def _clock_at(day: datetime.date) -> Iterator[None]:
    """Let chat templates that ask transformers for the day, which takes no other answer than the clock's, see `day`."""
    from transformers.utils import chat_template_utils

    class Fixed(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Fixed:
            return cls(day.year, day.month, day.day, tzinfo=tz)

    clock = chat_template_utils.datetime
    chat_template_utils.datetime = Fixed
    try:
        yield
    finally:
        chat_template_utils.datetime = clock


class HubTokenizer:
    """A tokenizer of transformers; one without a padding token pads with its end token.

    Args:
        tokenizer: a `PreTrainedTokenizerBase`.
        name: the model's name, for messages.
        ends: the ids that the model's own configuration declares to end a response, beside the tokenizer's.
        chat: how requests are written.

    Raises:
        UserError: neither tokenizer nor model has an end token.
    """

    def __init__(self, tokenizer: Any, name: str, ends: Sequence[int] = (), chat: Chat | None = None):
        self._tokenizer, self._name, self._chat = tokenizer, name, chat or Chat()
        own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        self.end_ids = tuple(dict.fromkeys([*own, *map(int, ends)]))
        if not self.end_ids:
            raise UserError(
                f"the tokenizer of '{name}' has no end token: name one as 'eos_token' in its tokenizer_config.json"
            )
        self.eos_id = self.end_ids[0]
        # Masks come from lengths, so that padding may look like an end.
        self.pad_id = self.eos_id if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        self.vocab_size = len(tokenizer)

    @property
    def of_transformers(self) -> Any:
        """The tokenizer itself."""
        return self._tokenizer

    def missing_ids(self, count: int) -> list[int]:
        """The ids below `count` that stand for no token, as where a model's embeddings are padded."""
        known = set(self._tokenizer.get_vocab().values())
        return [number for number in range(count) if number not in known]

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
        today = datetime.date.fromisoformat(self._chat.date)
        options = {"date_string": today.strftime("%d %b %Y"), **self._chat.options}
        try:
            with _clock_at(today):
                written = self._tokenizer.apply_chat_template(
                    message, tokenize=False, add_generation_prompt=True, **options
                )
        except Exception as error:  # of jinja2's dozen, and transformers' own where templates are several
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"the chat template of '{self._name}' cannot be filled in ({reason}): give chat_options that it can use"
            ) from None
        return str(written)
