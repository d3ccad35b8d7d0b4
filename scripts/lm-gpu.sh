#!/usr/bin/env bash
# The language models on one GPU, in one command: a vLLM server in an environment of its own, the tier lm_gpu once with
# the learner's own generation and once with the server's, and their memory and tokens a second. NOT RUN by this package's
# authors, who have no GPU; its parts are tested with stand-ins, see tests/lm/test_lm_gpu_script.py.
#
#   scripts/lm-gpu.sh [OUT]        default OUT: build/lm-gpu; VACO_TIER, VACO_VLLM (a vllm command) and PORT choose others
#
# Runs that are complete are not made again, so that it may be broken off and called again.
set -euo pipefail

out=${1:-build/lm-gpu}
tier=${VACO_TIER:-lm_gpu}
port=${PORT:-8000}
vllm=${VACO_VLLM:-}
mkdir -p "$out"
out=$(cd "$out" && pwd)
log() { printf '%s  %s\n' "$(date -u +%H:%M:%S)" "$*" | tee -a "$out/log" >&2; }

if [ -z "$vllm" ]; then
  # Its pins of torch and transformers are not this package's.
  [ -x "$out/vllm-venv/bin/vllm" ] || { python3 -m venv "$out/vllm-venv" && "$out/vllm-venv/bin/pip" install -q vllm; }
  vllm=$out/vllm-venv/bin/vllm
fi

setting() { python - "$tier" "$1" <<'PY'
import sys
from vaco.lm.tiers import load_lm_tier
print(load_lm_tier(sys.argv[1]).warm.resolved()[sys.argv[2]])
PY
}

commands() { python - "$tier" "$1" <<'PY'
import shlex, sys
from vaco.lm.tiers import load_lm_tier
for run in load_lm_tier(sys.argv[1]).runs:
    words = [*run.command[1:], "--set", f"engine={sys.argv[2]}"] if sys.argv[2] != "local" else run.command[1:]
    print(run.cell.replace("/", "-"), shlex.join(words))
PY
}

train_all() {
  commands "$1" | while read -r cell words; do
    log "$engine $cell"
    # shellcheck disable=SC2086
    eval "set -- $words"
    python -m vaco "$@" --out "$out/$engine/$cell" --no-policy --quiet >> "$out/log" 2>&1 < /dev/null
  done
}

engine=local
log "tier $tier with the learner's own generation"
train_all local

model=$(setting model)
log "starting $vllm serve $model"
# The learner shares the GPU. Logprobs are the model's own at temperature 1.
VLLM_SERVER_DEV_MODE=1 "$vllm" serve "$model" --port "$port" --gpu-memory-utilization 0.4 --enforce-eager \
  --generation-config vllm --weight-transfer-config '{"backend": "disk"}' > "$out/vllm.log" 2>&1 &
server=$!
trap 'kill "$server" 2> /dev/null || true' EXIT
export VACO_VLLM_URL=http://127.0.0.1:$port
for _ in $(seq 600); do
  python - "$VACO_VLLM_URL/health" <<'PY' 2> /dev/null && break
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=2)
PY
  kill -0 "$server" 2> /dev/null || { log "the server ended: see $out/vllm.log"; exit 1; }
  sleep 1
done
engine=vllm
log "tier $tier with vLLM"
train_all vllm

log "summary in $out/summary.csv"
python - "$out" <<'PY'
import csv, json, sys
from pathlib import Path
import pyarrow.parquet as parquet

out = Path(sys.argv[1])
rows = []
for path in sorted(out.glob("*/*/manifest.json")):
    manifest = json.loads(path.read_text())
    phases = parquet.read_table(path.parent / "phases.parquet").to_pydict()
    evals = parquet.read_table(path.parent / "evals.parquet").to_pydict()
    tokens = sum(phases["tokens"])
    rows.append({
        "engine": path.parts[-3], "cell": path.parts[-2], "accuracy": evals["accuracy"][-1],
        "mismatch": sum(phases["mismatch"]) / len(phases["mismatch"]),
        "generated_tokens_per_second": tokens / max(sum(phases["generate_seconds"]), 1e-9),
        "trained_tokens_per_second": tokens / max(sum(phases["update_seconds"]), 1e-9),
        "peak_gpu_gb": manifest.get("peak_gpu_gb"), "wall_seconds": manifest["wall_seconds"],
    })
with (out / "summary.csv").open("w", newline="") as stream:
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
PY
cat "$out/summary.csv"
