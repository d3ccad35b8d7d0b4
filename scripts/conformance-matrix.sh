#!/usr/bin/env bash
# Make matrix.json, and matrix.md with the book's table, from libraries as they are on the package index today.
# Usage: scripts/conformance-matrix.sh [ENVIRONMENT [FOLDER]]: a virtual environment, made if it is not there (some GB), and
# where to write; `snakemake conformance` calls it, and `make release` copies what it made.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv-conformance}
out=${2:-build/results/conformance}
# Broken off under way it would lack libraries, which then lacked in the table, too.
if [ ! -x "$venv/bin/python" ] || [ -e "$venv/.unfinished" ]; then
  mkdir -p "$venv" && touch "$venv/.unfinished"
  "${PYTHON:-python3}" -m venv "$venv"
  pip() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
  pip torch -c requirements.lock
  # A library that cannot be installed here is missing in the table, and nothing else.
  for package in stable-baselines3 trl torchrl rlax pfrl "ray[rllib]" tianshou skrl rsl-rl-lib; do
    pip "$package" || echo "not installed: $package" >&2
  done
  # Of these only the module with the loss is read: their own dependencies want inference engines.
  for package in verl rl-games rlinf; do pip --no-deps "$package" || echo "not installed: $package" >&2; done
  pip omegaconf codetiming hydra-core peft gym
  rm "$venv/.unfinished"
fi
mkdir -p "$out"
# The page is not made anew but filled in, so that nobody's text is written over.
[ -f "$out/matrix.md" ] || printf '<!-- matrix: made by vaco conformance -->\n<!-- /matrix -->\n' > "$out/matrix.md"
CUDA_VISIBLE_DEVICES='' PYTHONWARNINGS=ignore PYTHONPATH=src "$venv/bin/python" -m vaco conformance --libraries \
  --out "$out/matrix.json" --page "$out/matrix.md"
