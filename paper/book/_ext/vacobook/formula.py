"""The formulas of the table of algorithms, which the code writes in Unicode, as LaTeX.

The table in the book is thus the table in the code: a filter registered with a new formula is typeset, and one with a
sign that is not known here fails the build.
"""

from __future__ import annotations

import re

SIGNS = {
    "ρ̄": r"\bar\rho",
    "ρ": r"\rho",
    "π": r"\pi",
    "β": r"\beta",
    "δ": r"\delta",
    "ε": r"\varepsilon",
    "λ": r"\lambda",
    "σ": r"\sigma",
    "τ": r"\tau",
    "∇": r"\nabla",
    "·": r"\cdot",
    "−": "-",
    "‖": r"\,\|\,",
    "≤": r"\le",
    "≥": r"\ge",
    "∧": r"\wedge",
    "½": r"\tfrac12",
    "²": "^2",
    "Σ": r"\textstyle\sum",
    "√": r"\sqrt",
}
WORDS = {
    "uA": "uA",
    "not": r"\neg\,",
    "mean": r"\operatorname{mean}",
    "sign": r"\operatorname{sign}",
    "min": r"\min",
    "max": r"\max",
    "log": r"\log",
    "exp": r"\exp",
    "clip": r"\operatorname{clip}",
    "KL": r"\operatorname{KL}",
    "TV": r"\operatorname{TV}",
    "age": r"\text{age}",
    "step": r"\text{step}",
    "progress": r"\text{progress}",
}


def latex(formula: str) -> str:
    """Typeset one formula.

    Args:
        formula: as in `vaco.objectives.filters.FILTERS`, such as ``c = ρA · 1[not (A>0 and ρ>1+ε)]``.

    Returns:
        LaTeX without dollar signs.

    Raises:
        ValueError: a sign or a word that has no translation.
    """
    text = formula.replace(", and ", r",\ \text{and}\ ").replace(",  ", r",\quad ").replace("1[", r"\mathbf 1[")
    text = text.replace(" and ", r" \wedge ")
    for sign, written in SIGNS.items():
        text = text.replace(sign, f"{written} ")
    text = re.sub(r"(?<![\\A-Za-z{_])[A-Za-z]{2,}", _word, text)
    strange = {letter for letter in text if ord(letter) > 126}
    if strange:
        raise ValueError(f"no LaTeX for {sorted(strange)} in '{formula}': add it to vacobook.formula")
    return text


def _word(found: re.Match[str]) -> str:
    word = found.group()
    if word not in WORDS:
        raise ValueError(f"no LaTeX for the word '{word}': add it to vacobook.formula")
    return WORDS[word]
