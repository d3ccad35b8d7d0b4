"""Reading the final answer from a response and comparing it with the reference, exactly.

The reader is strict where leniency would pay a model for hedging: a final answer that states two different numbers, or
a malformed one, states none.
"""

from __future__ import annotations

import re
from fractions import Fraction

MARKER = "####"

_LONGEST = 60  # characters of one number; Python refuses to convert digits by the thousand
_LARGEST_EXPONENT = 99
_PLAIN = re.compile(r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_NUMBER = re.compile(
    r"(?:(?<![\w.])|(?=[$€£¥]))"  # neither the 2 of 'm2' nor a subtrahend's sign
    r"(?P<sign>[-+−])?(?:[$€£¥]\s?)?(?P<inner>[-−])?"
    r"(?P<run>\.?[0-9](?:[0-9.,]*[0-9])?)"
    r"(?:[eE](?P<exponent>[-+]?[0-9]+)|(?P<mixed>\s+[0-9]+)?\s?/\s?(?P<below>[0-9]+))?"
)


def plain_number(text: str) -> Fraction | None:
    """Read a text that is one decimal number and nothing else, such as ``-1,234.50``; None if it is not."""
    text = text.strip()
    if len(text) > _LONGEST:
        return None
    sign, digits = (text[0], text[1:]) if text[:1] in ("-", "−", "+") else ("+", text)
    if not _PLAIN.fullmatch(digits):
        return None
    value = Fraction(digits.replace(",", ""))
    return value if sign == "+" else -value


def stated_number(text: str) -> Fraction | None:
    """Read the one number that a phrase states: ``$1,234.50 a day.``, ``-3 apples``, ``x = 7``, ``3 1/2``.

    Args:
        text: a phrase; of an equation, what follows the last equals sign counts.

    Returns:
        The number's exact value; units, currency, a percent sign and punctuation do not matter. None if there is no
        number, a malformed one such as ``12,34``, a fraction over zero, or two of different value.
    """
    text = text.rpartition("=")[2].strip()
    if any(character.isnumeric() and not character.isascii() for character in text):
        return None  # ½, ² and the like: reading the rest would misread the number
    text = re.sub(r"^([-−])\s+", r"\1", text)
    values = {_value(match) for match in _NUMBER.finditer(text)}
    return values.pop() if len(values) == 1 else None


def _value(match: re.Match[str]) -> Fraction | None:
    """The value of one match of `_NUMBER`; None if it is malformed."""
    run, mixed, below = match["run"], match["mixed"], match["below"]
    if len(match[0]) > _LONGEST or not _PLAIN.fullmatch(run) or (below and not int(below)):
        return None
    if match["exponent"] and abs(int(match["exponent"])) > _LARGEST_EXPONENT:
        return None
    value = Fraction(run.replace(",", ""))
    if match["exponent"]:
        value *= Fraction(10) ** int(match["exponent"])
    elif mixed:
        value += Fraction(int(mixed), int(below))
    elif below:
        value /= int(below)
    negative = (match["sign"] in ("-", "−")) != (match["inner"] is not None)
    return -value if negative else value


def final_answer(response: str, marker: str = MARKER) -> str | None:
    """The text after the last marker; None without one."""
    _, found, answer = response.rpartition(marker)
    return answer.strip() if found else None


def final_number(response: str, marker: str = MARKER) -> Fraction | None:
    """The number stated on the line that starts at the last marker; None if there is none."""
    answer = final_answer(response, marker)
    return stated_number(answer.split("\n", 1)[0]) if answer else None
