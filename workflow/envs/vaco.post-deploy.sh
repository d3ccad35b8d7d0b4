#!/usr/bin/env bash
# Install the locked packages and the project into the environment that was just made, the latter editable: Snakemake
# does not make the environment anew when src/ is edited, so that jobs would go on with a copy of the old code.
# VACO_SOURCE is the repository, by default the folder that snakemake was called in.
set -euo pipefail
source=${VACO_SOURCE:-.}
python -m pip install -r "$source/requirements.lock"
python -m pip install --no-deps -e "$source"
