from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaco.runs.rng import WORDS, decode_generator, encode_generator


@given(seed=st.integers(0, 2**63), halves=st.integers(0, 5), draws=st.integers(0, 20))
def test_a_decoded_generator_continues_exactly(seed: int, halves: int, draws: int) -> None:
    original = np.random.default_rng(seed)
    original.standard_normal(draws)
    for _ in range(halves):  # an odd number of 32-bit draws leaves half a word in the generator
        original.integers(0, 2**32, dtype=np.uint32)
    words = encode_generator(original)
    assert words.shape == (WORDS,) and words.dtype == np.uint64
    copy = decode_generator(words)
    assert copy.bit_generator.state == original.bit_generator.state
    np.testing.assert_array_equal(
        copy.integers(0, 2**32, size=7, dtype=np.uint32), original.integers(0, 2**32, size=7, dtype=np.uint32)
    )
    np.testing.assert_array_equal(copy.standard_normal(50), original.standard_normal(50))


def test_encoding_draws_nothing_and_is_not_tied_to_the_generator() -> None:
    generator = np.random.default_rng(3)
    before = generator.bit_generator.state
    words = encode_generator(generator)
    assert generator.bit_generator.state == before
    kept = words.copy()
    generator.random(10)
    np.testing.assert_array_equal(words, kept)


def test_another_kind_of_generator_is_refused() -> None:
    with pytest.raises(TypeError, match="only a PCG64 generator"):
        encode_generator(np.random.Generator(np.random.MT19937(0)))


@pytest.mark.parametrize(("shape", "dtype"), [((5,), np.uint64), ((6,), np.int64), ((1, 6), np.uint64)])
def test_a_malformed_state_is_refused(shape: tuple[int, ...], dtype: type) -> None:
    words = np.zeros(shape, dtype)
    with pytest.raises(ValueError, match="6 uint64 words"):
        decode_generator(words)
