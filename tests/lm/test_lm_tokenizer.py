"""Text to ids and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaco.errors import UserError
from vaco.lm.tokenizer import ALPHABET, CharTokenizer, Chat, HubTokenizer


@given(st.text(ALPHABET))
def test_every_text_of_the_alphabet_comes_back(text: str) -> None:
    tokenizer = CharTokenizer()
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert all(3 <= number < tokenizer.vocab_size for number in ids)
    assert tokenizer.decode(ids) == text


def test_ids_are_one_a_character_and_specials_are_apart() -> None:
    tokenizer = CharTokenizer()
    assert len(set(ALPHABET)) == len(ALPHABET)
    assert len({tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id}) == 3
    assert sorted(tokenizer.encode(ALPHABET)) == list(range(3, tokenizer.vocab_size))
    # A checkpoint holds these numbers' embeddings: a character that moves would make old ones unreadable.
    assert tokenizer.encode("0+z") == [3, 13, 54]
    assert tokenizer.vocab_size == 55


def test_specials_are_left_out_of_the_text() -> None:
    tokenizer = CharTokenizer()
    ids = tokenizer.encode("1+1=2")
    padded = [tokenizer.pad_id, tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.pad_id]
    assert tokenizer.decode(padded) == "1+1=2"
    assert tokenizer.prompt("1+1=") == "1+1="


@pytest.mark.parametrize("text", ["A", "1+é", "½", "\t"])
def test_a_character_outside_the_alphabet_is_named(text: str) -> None:
    with pytest.raises(UserError, match="alphabet lacks the character") as error:
        CharTokenizer().encode(text)
    assert repr(text[-1]) in str(error.value)


@pytest.mark.parametrize("number", [-1, 55, 10**6])
def test_an_id_outside_the_vocabulary_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="ids go from 0"):
        CharTokenizer().decode([3, number])


def word_tokenizer(**special: str):  # type: ignore[no-untyped-def]
    """A transformers tokenizer of a handful of words, made without any file."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", "one", "two", "three"]
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def test_a_hub_tokenizer_adds_and_keeps_no_specials() -> None:
    tokenizer = HubTokenizer(word_tokenizer(pad_token="<pad>", eos_token="<eos>"), "words")
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.vocab_size) == (0, 1, 6)
    assert tokenizer.encode("one three") == [3, 5]
    assert tokenizer.decode([0, 3, 5, 1, 0]) == "one three"
    assert tokenizer.prompt("one") == "one"  # without a chat template


@pytest.mark.parametrize("adds", [True, False])
def test_without_a_template_a_text_begins_as_the_tokenizer_begins_it(adds: bool) -> None:
    from tokenizers import processors

    inner = word_tokenizer(pad_token="<pad>", eos_token="<eos>", bos_token="three")
    if adds:
        inner.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="three $A", special_tokens=[("three", 5)]
        )
    tokenizer = HubTokenizer(inner, "words")
    assert tokenizer.encode(tokenizer.prompt("one two")) == ([5, 3, 4] if adds else [3, 4])


def test_a_hub_tokenizer_applies_its_chat_template() -> None:
    inner = word_tokenizer(pad_token="<pad>", eos_token="<eos>")
    inner.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    assert HubTokenizer(inner, "words").prompt("two") == "[user] two\n[assistant] "


def test_a_tokenizer_without_padding_pads_with_its_end() -> None:
    tokenizer = HubTokenizer(word_tokenizer(eos_token="<eos>"), "words")
    assert tokenizer.pad_id == tokenizer.eos_id == 1 and tokenizer.end_ids == (1,)


def test_every_declared_end_counts_and_one_is_needed() -> None:
    tokenizer = HubTokenizer(word_tokenizer(eos_token="<eos>"), "words", ends=[4, 1])
    assert tokenizer.end_ids == (1, 4) and tokenizer.eos_id == 1
    assert HubTokenizer(word_tokenizer(pad_token="<pad>"), "words", ends=[4]).eos_id == 4
    with pytest.raises(UserError, match="the tokenizer of 'words' has no end token: name one as 'eos_token'"):
        HubTokenizer(word_tokenizer(pad_token="<pad>"), "words")


TODAY = "{{ strftime_now('%d %B %Y') }}, {{ date_string }}:{% for m in messages %}{{ m['content'] }}{% endfor %}"


def test_a_template_that_prints_the_date_prints_that_of_the_run() -> None:
    inner = word_tokenizer(eos_token="<eos>")
    inner.chat_template = TODAY
    assert HubTokenizer(inner, "words").prompt("two") == "01 January 2026, 01 Jan 2026:two"
    assert HubTokenizer(inner, "words", chat=Chat("1999-12-31")).prompt("") == "31 December 1999, 31 Dec 1999:"


def test_variables_of_a_template_and_the_choice_of_one() -> None:
    inner = word_tokenizer(eos_token="<eos>")
    inner.chat_template = {"default": "{% if thinking %}hm {% endif %}a", "tools": "b"}
    assert HubTokenizer(inner, "words", chat=Chat(options={"thinking": True})).prompt("") == "hm a"
    assert HubTokenizer(inner, "words", chat=Chat(options={"chat_template": "tools"})).prompt("") == "b"
    inner.chat_template = {"one": "a", "other": "b"}
    with pytest.raises(UserError, match=r"chat template of 'words' cannot be filled in .*give chat_options"):
        HubTokenizer(inner, "words").prompt("")
