"""How the small commands of this package end: a mistake of the user is one sentence and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from vaco.errors import UserError


def run_command(main: Callable[[], int]) -> NoReturn:
    """Run `main` and leave the process with its exit code; a `UserError` is printed without a traceback."""
    try:
        sys.exit(main())
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
