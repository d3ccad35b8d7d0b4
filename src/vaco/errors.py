"""The one exception that is meant for people, and what its sentences are made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake its reader can mend.

    The message is one sentence: what was wrong, what was expected, how to mend it. The command line prints
    it alone, without a traceback, and exits with code 2.
    """


def said(error: BaseException) -> str:
    """What an exception of other code says, on one line and without a full stop, for brackets in a sentence of ours.

    Args:
        error: the exception.
    """
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Name the valid spelling closest to `name`, or list all of them when none is close.

    Args:
        name: what the user wrote.
        valid: every accepted spelling.

    Returns:
        A clause that completes an error message, such as ``did you mean 'vaco'?``.
    """
    options = sorted(valid)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    close = close or difflib.get_close_matches(name.lower(), options, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"valid names are {', '.join(options)}"
