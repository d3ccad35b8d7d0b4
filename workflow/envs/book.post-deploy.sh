#!/usr/bin/env bash
# Install the package with what builds its book into the environment that was just made, see vaco.post-deploy.sh.
set -euo pipefail
python -m pip install "${VACO_SOURCE:-.}[book]"
