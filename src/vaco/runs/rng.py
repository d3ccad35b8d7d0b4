"""The state of a random generator as a small array, so that a checkpoint of plain arrays can hold it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WORDS = 6
"""Length of an encoded state: state and increment of 128 bits each, and the spare half of a 64-bit draw."""

_MASK = (1 << 64) - 1


def encode_generator(generator: np.random.Generator) -> NDArray[np.uint64]:
    """Write the exact state of a PCG64 generator into unsigned words.

    Args:
        generator: a generator whose bit generator is `np.random.PCG64`, as `np.random.default_rng` makes.

    Returns:
        [6] uint64: state (high, low), increment (high, low), `has_uint32` and `uinteger`: the last two
        are the half of a 64-bit draw that a 32-bit draw has left over.

    Raises:
        TypeError: if the bit generator is of another kind; its state is of another form.
    """
    if not isinstance(generator.bit_generator, np.random.PCG64):
        kind = type(generator.bit_generator).__name__
        raise TypeError(f"only a PCG64 generator can be encoded, not {kind}: use np.random.default_rng")
    state = generator.bit_generator.state
    value, increment = int(state["state"]["state"]), int(state["state"]["inc"])
    words = [
        value >> 64,
        value & _MASK,
        increment >> 64,
        increment & _MASK,
        int(state["has_uint32"]),
        int(state["uinteger"]),
    ]
    return np.array(words, dtype=np.uint64)


def decode_generator(words: NDArray[np.uint64]) -> np.random.Generator:
    """Make a new generator that continues exactly where the encoded one stood.

    Args:
        words: [6] uint64, from `encode_generator`.

    Returns:
        A new PCG64 generator.

    Raises:
        ValueError: if the array is not six unsigned 64-bit words.
    """
    if words.shape != (WORDS,) or words.dtype != np.uint64:
        found = f"{words.dtype} of shape {words.shape}"
        raise ValueError(f"the state of a generator is {WORDS} uint64 words, not {found}")
    value_high, value_low, increment_high, increment_low, has_uint32, uinteger = (int(word) for word in words)
    # The seed is of no consequence, since the state is replaced, but without one NumPy would ask for entropy.
    bit_generator = np.random.PCG64(0)
    bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": value_high << 64 | value_low, "inc": increment_high << 64 | increment_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bit_generator)
