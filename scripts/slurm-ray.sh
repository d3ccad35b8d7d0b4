#!/usr/bin/env bash
# Ray on all nodes of a SLURM allocation, and a command that uses it:
#
#   sbatch --partition=P --nodes=2 --ntasks-per-node=1 --cpus-per-task=8 scripts/slurm-ray.sh \
#     vaco train --env HalfCheetah-v5 --actors 15 --engine ray --out DIR
#
# Every task of the allocation is a node of Ray's with --cpus-per-task cores, also where several are on one machine. The
# command runs on the first, whose learner takes one of the cores; an actor takes one each. It finds Ray by RAY_ADDRESS, and
# nobody else can use it: it asks for a token that only this job knows. When the command ends, however it does, Ray ends.
# A job that is taken back or whose time is up stops the run with a checkpoint, is queued again and goes on from there.
# What happens is in logs/ray-JOB.log, what Ray says in logs/ray-JOB.nodes.log. The environment and DIR must lie on a file
# system that the nodes share. See paper/book/cluster.md.
#SBATCH --job-name=vaco-ray
#SBATCH --mem-per-cpu=1500
#SBATCH --requeue
#SBATCH --output=/dev/null
set -euo pipefail
fail() { echo "slurm-ray: $2"; exit "$1"; }
[ -n "${SLURM_JOB_ID:-}" ] || fail 2 "this needs an allocation: start it with sbatch, as its first lines show" >&2
mkdir -p logs
log=logs/ray-$SLURM_JOB_ID
exec >>"$log.log" 2>&1

# ---- Is all there that it needs?
[ $# -gt 0 ] || fail 2 "there is no command to run: give one behind the script's name, such as vaco train ... --engine ray"
command -v ray >/dev/null ||
  fail 127 'ray is not on the search path: activate the environment of vaco before sbatch, and pip install "vaco[ray]" in it'
command -v "$1" >/dev/null || fail 127 "$1 is not on the search path: activate its environment before sbatch"
nodes=${SLURM_NTASKS:-$SLURM_JOB_NUM_NODES} cores=${SLURM_CPUS_PER_TASK:-1}
room=$((nodes * cores - 1))
asks=1
if [[ " $* " =~ \ --actors[\ =]([0-9]+)\  ]]; then asks=${BASH_REMATCH[1]}; fi
[ "$room" -ge "$asks" ] || fail 2 "the allocation has room for $room actors, and $asks are to be there: the learner and \
every actor need a core each, of --ntasks times --cpus-per-task"

# ---- One node of Ray's, a task of srun
# SLURM sends SIGTERM to all processes of a job that it takes back, and Ray must not hear it: the run needs its actors
# until it has saved. Ray handles the signal, so that ignoring it would not do; blocked, it stays so in whatever Ray starts.
# And all of that is a session, by which it can be killed.
deaf='import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.setsid()
os.execvp(sys.argv[1], sys.argv[1:])'
# The address from which another machine is reached; nothing is sent.
own='import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
    way.connect((sys.argv[1], 9))
    print(way.getsockname()[0])'
there() { (: >"/dev/tcp/$ip/$port") 2>/dev/null; } # is the head?
end() { for _ in 1 2 3; do pkill -KILL --session "$1" || :; sleep 0.2; done; } # also what was started meanwhile
node() {
  # The folder is this user's, though everybody may write where it lies.
  mkdir -m 700 "$place" 2>/dev/null || [ -O "$place" ] || { echo "$place exists and belongs to somebody else"; exit 1; }
  local flags=(--block --disable-usage-stats --object-store-memory=200000000 --dashboard-agent-listen-port=0) ray
  if [ "$SLURM_PROCID" = 0 ]; then
    flags+=(--head --node-ip-address="$ip" --port="$port" --num-cpus=$((cores - 1)) --include-dashboard=false)
    flags+=(--temp-dir="$place") # of all: the others ask the head
    # With grpc installed Ray opens one more port, for all jobs the same one unless told.
    if python -c 'import grpc' 2>/dev/null; then flags+=(--ray-client-server-port="$other_port"); fi
  else
    until there; do sleep 0.5; done
    flags+=(--address="$ip:$port" --num-cpus="$cores" --node-ip-address="$(python -c "$own" "$ip")")
  fi
  trap '' TERM
  # Again if it fails, as where the head listens and is not ready.
  python -c "$deaf" bash -c 'until ray start "$@"; do sleep 2; done' ray "${flags[@]}" &
  ray=$!
  if [ "$SLURM_PROCID" = 0 ]; then
    echo "$ray" >"$place/head" # for the script to end
    wait
  else
    # The head's end is everybody's. srun would pass on no word once SLURM ends the job.
    while there || { sleep 1; there; }; do sleep 1; done
  fi
  end "$ray"
  rm -rf "$place" 2>/dev/null || : # of several on one machine the last can
}

# ---- Start them
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
if [ ${#hosts[@]} -gt 1 ]; then ip=$(python -c "$own" "${hosts[1]}"); else
  ip=$(python -c 'import ray; print(ray.util.get_node_ip_address())')
fi
read -r port other_port < <(python -c 'import socket
held = [socket.create_server(("", 0)) for _ in range(2)]
print(*[one.getsockname()[1] for one in held])')
# A socket's name has to be short, which $TMPDIR may not be.
place=/tmp/vaco-ray-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
export deaf own ip port other_port place cores RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_memory_monitor_refresh_ms=0 # SLURM looks after memory; of the machine's Ray would kill for other jobs' sake
srun --ntasks="$nodes" --cpus-per-task="$cores" --kill-on-bad-exit=0 --output="$log.nodes.log" --open-mode=append \
  bash -c "$(declare -f there end node); node" &
tasks=$!
down() {
  trap '' TERM INT HUP
  if [ -s "$place/head" ]; then end "$(<"$place/head")"; else kill "$tasks" 2>/dev/null || :; fi
  # Not for ever: what hangs is SLURM's to end, after this script.
  for _ in $(seq 100); do if kill -0 "$tasks" 2>/dev/null; then sleep 0.2; fi; done
  rm -rf "$place"
}
trap down EXIT

# ---- Run the command; what SLURM asks of this script it hears, too
attend() {
  local asked code child
  "$@" &
  child=$!
  trap 'asked=1 stopped=1; kill -TERM "$child" 2>/dev/null || :' TERM INT HUP
  while :; do
    asked=0 code=0
    wait "$child" || code=$?
    [ "$asked" = 1 ] || return "$code" # else it was the signal that ended waiting
  done
}
export RAY_ADDRESS=$ip:$port VACO_REQUEUE=1
joined() {
  until there; do
    kill -0 "$tasks" 2>/dev/null && [ "$SECONDS" -lt 600 ] || return 1
    sleep 0.5
  done
  exec timeout 600 python -c 'import os, sys, time, ray
ray.init(log_to_driver=False, logging_level="ERROR")
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    os.kill(int(sys.argv[2]), 0)
    time.sleep(0.5)' "$nodes" "$tasks"
}
stopped=0
attend joined 2>>"$log.nodes.log" || {
  [ "$stopped" = 0 ] || exit 75
  fail 1 "not all of Ray's $nodes nodes could be started within ten minutes: $log.nodes.log says why"
}
echo "slurm-ray: Ray has $nodes nodes on $SLURM_JOB_NODELIST, with room for $room actors"
attend "$@"
