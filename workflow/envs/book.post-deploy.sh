#!/usr/bin/env bash
# Install the package with what builds its book into the environment that was just made, see vaco.post-deploy.sh.
set -euo pipefail
source=${VACO_SOURCE:-.}
python -m pip install -c "$source/requirements.lock" -e "$source[repro]"
