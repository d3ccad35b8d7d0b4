"""How every command of this package begins and ends: its streams, its flags, its exit code.

Exit codes: 0 done; 1 a check failed; 2 a user's mistake, or an output that could not be written; 75 asked to stop, the
same command continues; 130 interrupted, where nothing could be saved.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TextIO

from vaco.errors import UserError

MISTAKE, INTERRUPTED = 2, 130


class _Drain(io.FileIO):
    """An output that never fails: what cannot be written is dropped, and `failure` says why.

    A reader that has read enough (``vaco stale | head``), or a terminal that is gone, is no reason to lose a result
    or to end a run that takes days.
    """

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write some of `data`, or drop all of it; waits for a reader that is slow."""
        while self.failure is None:
            try:
                written: int | None = super().write(data)
                if written is not None:
                    return written
                select.select([], [self], [])
            except OSError as error:
                self.failure = error
        return len(data)


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one sentence, raised rather than printed; no flag may be given twice.

    Attributes:
        more_help: makes what the help ends with, when it is asked for.
    """

    more_help: Callable[[], str] | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As `argparse.ArgumentParser`."""
        super().__init__(*arguments, **options)
        for action in (None, "store"):
            self.register("action", action, _Once)

    def format_help(self) -> str:
        """The usual help, and `more_help`."""
        return super().format_help() + ("" if self.more_help is None else self.more_help())

    def error(self, message: str) -> NoReturn:
        """Raise it as a mistake of the user's."""
        raise UserError(f"{message}; see '{self.prog} --help'")


def whole(text: str) -> int:
    """A whole number of a flag as people write it: 2048, 1e6, 1_000_000."""
    for read in (int, float):
        with contextlib.suppress(ValueError, OverflowError):
            if (number := read(text)) == int(number):
                return int(number)
    raise argparse.ArgumentTypeError(f"'{text}' is no whole number, such as 2048 or 1e6")


class _Once(argparse.Action):
    """Store a value, and refuse another one: of two, the last would win without a word."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        given: set[str] = vars(namespace).setdefault("_given", set())
        if option_string is not None and self.dest in given:
            parser.error(f"{self.option_strings[0]} is given twice: keep one of them")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and leave the process with its exit code; a `UserError` is printed without a traceback.

    Standard output and error lose no command: characters that a terminal lacks are replaced, and a reader that went
    away, or a stream that was closed from the start, changes nothing but what can be seen. Only a standard output that
    refused what was written to it (a full disk) is a failure, with exit code 2.
    """
    drain = steady_streams()
    try:
        code = main() or 0
    except UserError as mistake:
        print("vaco:", *str(mistake).split(), file=sys.stderr)  # on one line, whatever names it quotes
        code = MISTAKE
    except KeyboardInterrupt:
        print("vaco: interrupted", file=sys.stderr)
        code = INTERRUPTED
    except SystemExit as end:  # --help, --version
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout.flush()
    failure = drain.failure
    if failure is not None and failure.errno != errno.EPIPE:
        print(f"vaco: the output could not be written ({failure.strerror}): give it another place", file=sys.stderr)
        code = code or MISTAKE
    sys.exit(code)


def steady_streams() -> _Drain:
    """Put streams that never fail in place of standard output and error; returns what stands behind the output.

    A stream that the caller closed is opened on nothing, for its number would go to the next file that is opened, and
    libraries would write their warnings into a checkpoint.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)  # or the processes that glfw starts when it is loaded would lack it
    out, sys.stdout = _steady(1, sys.stdout)
    _, sys.stderr = _steady(2, sys.stderr)
    return out


def _steady(number: int, before: TextIO | None) -> tuple[_Drain, TextIO]:
    if before is not None:
        before.flush()
    drain = _Drain(number, "w", closefd=False)
    # Standard error is written line by line also into a file, as Python itself has it.
    by_line = number == 2 or os.isatty(number)
    encoding = getattr(before, "encoding", None) or "utf-8"
    return drain, io.TextIOWrapper(io.BufferedWriter(drain), encoding, errors="replace", line_buffering=by_line)
