"""Entry point: settles the number of threads before any numerical library is imported, then hands over to `cli`."""

from __future__ import annotations

import os
import signal
import sys

from vaco.command import run_command

# One thread a process: at these sizes more threads only wait for each other, and a fixed number keeps the order of
# floating-point sums, hence the bits, the same. A number set by the user wins.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


def main() -> None:
    """Run the command line and exit with its code."""
    run_command(_run)


def _run() -> int:
    from vaco.cli import run
    from vaco.runs.preemption import SIGNALS

    code = run(sys.argv[1:])
    # Nothing is left to stop: dying of a late signal would make a finished run look like a failed one, whose files
    # Snakemake deletes.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    main()
