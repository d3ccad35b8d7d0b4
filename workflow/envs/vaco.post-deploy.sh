#!/usr/bin/env bash
# Install the package into the environment that was just made. VACO_SOURCE is the repository, by default the folder
# that snakemake was called in.
set -euo pipefail
python -m pip install "${VACO_SOURCE:-.}"
