"""Entry point: settles the number of threads before any numerical library is imported, then hands over to `cli`."""

from __future__ import annotations

import os
import sys

# One thread a process: at these sizes more threads only wait for each other, and a fixed number keeps the order of
# floating-point sums, hence the bits, the same. A number set by the user wins.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


def main() -> None:
    """Run the command line and exit with its code."""
    from vaco.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
