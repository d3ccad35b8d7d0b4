#!/usr/bin/env bash
# The tests on a real SLURM, where this machine can start one: as root, with SLURM's daemons or apt-get to install them.
# Elsewhere they are skipped, and it is said why; with VACO_CI_REQUIRE_SLURM=1 that is an error. Called by .ci/run.
set -euo pipefail
cd "$(dirname "$0")/.."

code=0
why=$(scripts/slurm-cluster.sh prepare 2>&1) || code=$?
if [ "$code" = 0 ]; then exec make test-slurm; fi
why=$(tail -n 1 <<<"$why")
if [ "$code" = 3 ] && [ "${VACO_CI_REQUIRE_SLURM:-0}" != 1 ]; then
  echo "SKIPPED: the tests on SLURM. ${why#slurm-cluster: }"
  echo "SKIPPED: VACO_CI_REQUIRE_SLURM=1 would make this an error."
  exit 0
fi
echo "FAILED: the tests on SLURM could not run. ${why#slurm-cluster: }" >&2
exit 1
