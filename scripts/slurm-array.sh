#!/usr/bin/env bash
# The runs of a tier as a SLURM job array, without a process that watches over them:
#
#   sbatch --partition=P --time=240 --array=1-100%50 scripts/slurm-array.sh paper 100
#
# trains the tier `paper` in 100 shares, 50 at a time, in the folder that it is called in, with the `vaco` that is on the
# search path. The same command again does what is left: finished and published runs are skipped, begun ones continue.
# A task whose time is up saves, stops and queues itself again, so --time need not be long enough for a run. With
# --cpus-per-task=C a task trains C runs at a time; give it 600 MB each. What happens is in logs/, a file a task, and
# `vaco status --tier paper` says how far it is. See paper/book/cluster.md.
#SBATCH --job-name=vaco
#SBATCH --ntasks=1
#SBATCH --mem=1000
#SBATCH --requeue
#SBATCH --output=/dev/null
set -euo pipefail
tier=${1:?usage: sbatch --array=1-N scripts/slurm-array.sh TIER N} shards=${2:?how many shares: the N of --array=1-N}
mkdir -p logs
exec >>"logs/array-${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID.log" 2>&1
# Attempts of one array belong together; a task whose time is up is queued again.
export VACO_ATTEMPTS="array-$SLURM_ARRAY_JOB_ID" VACO_REQUEUE=1
command -v vaco >/dev/null || { echo "vaco is not on the search path: activate its environment before sbatch"; exit 127; }
# In place of this shell, which would not hear SLURM's signals while it waits.
exec vaco plan --tier "$tier" --shard "$SLURM_ARRAY_TASK_ID/$shards" --run --jobs "${SLURM_CPUS_PER_TASK:-1}"
