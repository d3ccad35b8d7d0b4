#!/usr/bin/env bash
# Build wheel and sdist, check them, and install the core alone into an empty environment, with the lock's PyTorch; there
# run the objectives' tests, and add the filter to a loop. Then the adapters, which train on their libraries.
# With VACO_CI_PACKAGE=1 also with the newest PyTorch that can be had and with the oldest that pyproject.toml names: gigabytes.
# Usage: scripts/package-ci.sh [FOLDER]: where environments are made and kept; a temporary folder by default.
# PYTHON_OLDEST names the interpreter of the oldest, by default one of 3.10 to 3.12 that is found.
set -euo pipefail
unset PYTHONPATH  # what is installed is what is tested
cd "$(dirname "$0")/.."
if [ $# -gt 0 ]; then mkdir -p "$1"; work=$(cd "$1" && pwd); else work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; fi
python=${PYTHON:-python3}
pip() { "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}"; }
environment() { [ -x "$1/bin/python" ] || "$2" -m venv "$1"; }

environment "$work/build" "$python"
# CI, which asks with VACO_CI_PACKAGE=0, may have an index that holds the lock alone; for anybody else that is an error.
[ "${VACO_CI_PACKAGE:-}" != 0 ] || "$work/build/bin/python" -m pip download --quiet --no-deps --dest "$work/index" \
  build twine stable-baselines3 torchrl trl datasets ||
  { echo "SKIPPED: the package index lacks what the check of the package needs"; exit 0; }
pip "$work/build" build twine
rm -rf "$work/dist"
# From a copy of what git tracks, so that nothing lying about gets in.
rm -rf "$work/source" && mkdir "$work/source" && git archive HEAD | tar -x -C "$work/source"
"$work/build/bin/python" -m build --outdir "$work/dist" "$work/source" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$work/build/bin/python" -m twine check --strict "$work"/dist/*

# Tests of the library alone, away from the checkout, so that what is installed is what is tested.
rm -rf "$work/tests" && mkdir -p "$work/tests" && cp -r tests/objectives "$work/tests/" && cp -r tests/data "$work/tests/"
cat >"$work/loop.py" <<'LOOP'
import sys, torch, vaco
assert not {"scipy", "pandas", "gymnasium", "yaml", "pydantic", "transformers"} & set(sys.modules)
torch.manual_seed(0)
logits, fired = torch.zeros(4, requires_grad=True), 0.0
behaviour, actions, advantages = torch.randn(4).log_softmax(-1), torch.arange(4).repeat(8), torch.randn(32)
learner = logits.detach().log_softmax(-1)[actions]
for step in range(20):
    logp = logits.log_softmax(-1)[actions]
    loss, diagnostics = vaco.policy_loss(
        logp, behaviour_logp=behaviour[actions], learner_logp=learner, advantages=advantages, settings={"delta": 0.05})
    loss.backward()
    fired += diagnostics.figures()["trigger_fraction"]
    with torch.no_grad():
        logits -= logits.grad
        logits.grad = None
assert 1 <= fired < 20, fired  # not at first, when no step was taken
print("torch", torch.__version__, "python", sys.version.split()[0], vaco.__file__.split("site-packages")[-1])
LOOP
check() { # name, interpreter, packages
  environment "$work/$1" "$2"
  pip "$work/$1" --upgrade "${@:3}"
  pip "$work/$1" --force-reinstall --no-deps "$work"/dist/*.whl
  (cd "$work" && OMP_NUM_THREADS=1 "$work/$1/bin/python" -W error::DeprecationWarning loop.py)
  [ "$("$work/$1/bin/vaco" train --out nothing 2>&1)" = 'vaco: this needs pydantic, which is not installed: pip install "vaco[control]"' ]
  "$work/$1/bin/vaco" algorithms >/dev/null
  pip "$work/$1" pytest hypothesis scipy  # scipy: what closed forms of divergences are compared with
  (cd "$work/tests" && OMP_NUM_THREADS=1 "$work/$1/bin/python" -m pytest -q -p no:cacheprovider objectives)
}
check locked "$python" -c requirements.lock torch numpy
# Adapters train on the libraries that they adapt to.
pip "$work/locked" -c requirements.lock stable-baselines3 torchrl trl datasets pytest
cp -r tests/adapters "$work/tests/"
mkdir -p "$work/paper/book" && cp paper/book/*.md "$work/paper/book/"  # pages whose code a test runs
(cd "$work/tests" && OMP_NUM_THREADS=1 "$work/locked/bin/python" -m pytest -q -p no:cacheprovider adapters)

[ "${VACO_CI_PACKAGE:-0}" = 1 ] || { echo "SKIPPED: the newest and the oldest PyTorch; VACO_CI_PACKAGE=1 installs them"; exit 0; }
check newest "$python" torch numpy
# PyTorch of that age has wheels for Python up to 3.12.
oldest=$(sed -n 's/^dependencies = .*"torch>=\([0-9.]*\)".*/\1/p' pyproject.toml)
numpy=$(sed -n 's/^dependencies = .*"numpy>=\([0-9.]*\)".*/\1/p' pyproject.toml)
interpreter=${PYTHON_OLDEST:-}
for name in python3.10 python3.11 python3.12; do
  [ -n "$interpreter" ] || { "$name" -c "" 2>/dev/null && interpreter=$name; } || true
done
[ -n "$interpreter" ] || { echo "SKIPPED: no Python 3.10 to 3.12 for PyTorch $oldest"; exit 0; }
check oldest "$interpreter" "torch==$oldest.*" "numpy==$numpy.*"
