"""Entry point: settles the number of threads before any numerical library is imported, then hands over to `cli`."""

from __future__ import annotations

import os
import signal
import sys

# One thread a process: at these sizes more threads only wait for each other, and a fixed number keeps the order of
# floating-point sums, hence the bits, the same. A number set by the user wins.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


def main() -> None:
    """Run the command line and exit with its code."""
    from vaco.cli import run

    code = run(sys.argv[1:])
    # Nothing is left to stop: dying of a late SIGTERM would make a finished run look like a failed one, whose files
    # Snakemake deletes.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(code)


if __name__ == "__main__":
    main()
