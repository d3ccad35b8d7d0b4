#!/usr/bin/env bash
# A throw-away SLURM cluster of one node, to test the slurm profile against real daemons.
#
#   scripts/slurm-cluster.sh up       install what is missing, configure, start, run a first job; does nothing if it is up
#   scripts/slurm-cluster.sh down     cancel its jobs, stop its daemons, remove all that 'up' wrote; does nothing if down
#   scripts/slurm-cluster.sh status   say whether it is up; exit code 0 or 3
#   scripts/slurm-cluster.sh prepare  install what is missing and start nothing; exit code 3, and one sentence that says
#                                     why, where a cluster cannot be started
#
# An 'up' that fails or is interrupted leaves nothing behind but packages; what a killed one left, the next 'up' or 'down'
# removes. Two that are called at once wait for each other.
#
# For Debian or Ubuntu as root, in a machine or container of your own. It refuses to start where /etc/slurm/slurm.conf
# exists and is not its own, so it cannot get in the way of a real cluster. All its files are in one folder
# ($VACO_SLURM_DIR, default /tmp/vaco-slurm), apart from the link /etc/slurm/slurm.conf (the nested srun of Snakemake's
# plugin reads nothing else) and, where the host name does not resolve, one marked line in /etc/hosts.
# $VACO_SLURM_CPUS (default 8) is how many processors the node claims to have; it may exceed the real number.
# $VACO_SLURM_PATIENCE (default 60) is how many seconds the daemons, and then a first job, may take.
set -euo pipefail

DIR=${VACO_SLURM_DIR:-/tmp/vaco-slurm}
CPUS=${VACO_SLURM_CPUS:-8}
PATIENCE=${VACO_SLURM_PATIENCE:-60}
CONF=/etc/slurm/slurm.conf
HOSTS_MARK="# added by vaco scripts/slurm-cluster.sh"
POLICY=/usr/sbin/policy-rc.d
POLICY_MARK="# by vaco scripts/slurm-cluster.sh"
HOST=$(hostname -s)
FIRST= # process of the first job
export PATH="$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive VACO_SLURM_DIR="$DIR"
unset SLURM_CONF

fail() { echo "slurm-cluster: $*" >&2; exit 1; }

# The process of a daemon of ours. A pid file may outlive its process, and the pid may by then be somebody else's; and one
# that was interrupted early has no pid file yet, but was started with $VACO_SLURM_DIR in its environment.
pid() {
  local number place
  number=$(cat "$DIR/$1.pid" 2>/dev/null || :)
  if [ -n "$number" ] && [ "$(cat "/proc/$number/comm" 2>/dev/null)" = "$1" ]; then echo "$number"; return 0; fi
  for place in /proc/[0-9]*; do
    if [ "$(cat "$place/comm" 2>/dev/null)" = "$1" ] && grep -qszxF "VACO_SLURM_DIR=$DIR" "$place/environ"; then
      echo "${place#/proc/}"; return 0
    fi
  done
  return 1
}
alive() { pid "$1" >/dev/null; }
gone() { ! alive "$1"; }
ours() { [ "$(readlink "$CONF" 2>/dev/null)" = "$DIR/slurm.conf" ]; }
idle() { [ "$(timeout 5 sinfo -h -o %t 2>/dev/null)" = idle ]; }
no_jobs() { [ -z "$(timeout 5 squeue -h 2>/dev/null)" ]; }
answers() { timeout 5 scontrol ping 2>/dev/null | grep -q 'is UP'; }
within() { # SECONDS COMMAND...: repeat the command until it succeeds
  local tries=$(($1 * 5)); shift
  for _ in $(seq "$tries"); do if "$@"; then return 0; fi; sleep .2; done
  return 1
}

missing() {
  local tool
  for tool in slurmctld slurmd munged sbatch srun; do command -v "$tool" >/dev/null || printf ' %s' "$tool"; done
}

install_missing() {
  [ -n "$(missing)" ] || return 0
  # The packages must not start daemons of their own, which would listen on the same ports.
  if [ ! -e "$POLICY" ]; then printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"; chmod 755 "$POLICY"; fi
  # Removing packages later could remove what others installed meanwhile, so 'down' leaves them.
  local well=
  if apt-get update -qq &&
    apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null; then well=1; fi
  allow_daemons
  [ -n "$well" ]
}

# Take away the file that keeps packages from starting daemons, if it is ours.
allow_daemons() { if grep -qsF "$POLICY_MARK" "$POLICY"; then rm -f "$POLICY"; fi; }

# One sentence that says why no cluster can be started here; nothing if one can.
obstacle() {
  if [ "$(id -u)" != 0 ]; then
    echo "starting daemons and writing $CONF needs root: run it in a container of your own"
  elif { [ -e "$CONF" ] || [ -L "$CONF" ]; } && ! ours; then
    echo "$CONF exists and is not ours, so this machine seems to belong to a cluster: use another machine or container"
  elif [ -e "$DIR" ] && { [ ! -e "$DIR/OURS" ] || [ ! -O "$DIR" ]; }; then
    echo "$DIR exists and is not ours: give another folder with VACO_SLURM_DIR"
  elif [ -n "$(missing)" ] && ! command -v apt-get >/dev/null; then
    echo "missing:$(missing), and there is no apt-get to install them with: install SLURM and munge"
  elif ! install_missing; then
    echo "missing:$(missing), and apt-get could not install them: install slurmctld, slurmd, slurm-client and munge"
  fi
}

write_configuration() {
  local memory
  memory=$(awk '/MemTotal/{print int($2 / 1024 * .9)}' /proc/meminfo)
  mkdir -p "$DIR"
  echo "throw-away cluster of vaco; scripts/slurm-cluster.sh down removes this folder" >"$DIR/OURS"
  mkdir -p "$DIR"/{controller,node} /etc/slurm
  chmod 755 "$DIR"
  (umask 077; head -c 128 /dev/urandom >"$DIR/munge.key")
  # No partition is the default, so that a profile must name one. Memory limits are enforced by polling, without cgroups.
  cat >"$DIR/slurm.conf" <<CONF
ClusterName=vaco
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
AuthInfo=socket=$DIR/munge.sock
StateSaveLocation=$DIR/controller
SlurmdSpoolDir=$DIR/node
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/slurmctld.log
SlurmdLogFile=$DIR/slurmd.log
MailProg=/bin/true
MpiDefault=none
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/completed.txt
MinJobAge=3600
KillWait=20
OverTimeLimit=0
ReturnToService=2
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=$memory State=UNKNOWN
PartitionName=test Nodes=$HOST Default=NO MaxTime=60 State=UP
CONF
  ln -sfn "$DIR/slurm.conf" "$CONF"
}

up() {
  if ours && alive slurmctld && alive slurmd && alive munged && answers; then echo "slurm-cluster: already up ($DIR)"; return; fi
  local problem
  trap allow_daemons EXIT
  trap 'exit 130' INT; trap 'exit 143' TERM; trap 'exit 129' HUP
  problem=$(obstacle)
  [ -z "$problem" ] || fail "$problem"
  trap undo EXIT
  down >/dev/null # what a crashed 'up' or a reboot left
  if ! getent hosts "$HOST" >/dev/null; then echo "127.0.0.1 $HOST $HOSTS_MARK" >>/etc/hosts; fi
  write_configuration
  # Without the descriptor of the lock, which they would hold as long as they live.
  munged --key-file="$DIR/munge.key" --socket="$DIR/munge.sock" --pid-file="$DIR/munged.pid" \
    --log-file="$DIR/munged.log" --seed-file="$DIR/munged.seed" 2>>"$DIR/start.log" 9<&-
  slurmctld -c 2>>"$DIR/start.log" 9<&-
  slurmd 2>>"$DIR/start.log" 9<&-
  within "$PATIENCE" idle || :
  # In the background, since a shell that waits for a foreground process hears no signal.
  timeout "$PATIENCE" srun --partition test --ntasks 1 true 9<&- &
  FIRST=$!
  if ! wait "$FIRST"; then
    tail -n 15 "$DIR"/*.log >&2
    fail "the daemons started but a first job failed; their last words are above"
  fi
  trap - EXIT INT TERM HUP
  echo "slurm-cluster: up ($DIR), $(sinfo -h -o 'partition %P, %c processors, %m MB')"
}

# Leave nothing of an 'up' that failed or was interrupted, and do not be interrupted in turn.
undo() {
  local code=$?
  trap - EXIT
  trap '' INT TERM HUP
  if [ -n "$FIRST" ]; then kill "$FIRST" 2>/dev/null || :; fi
  if [ -s "$DIR/start.log" ]; then cat "$DIR/start.log" >&2; fi
  down >/dev/null || :
  exit "$code"
}

stop() {
  local number
  number=$(pid "$1") || return 0
  kill "$number" 2>/dev/null || :
  within 10 gone "$1" || kill -9 "$number" 2>/dev/null || :
}

# A process of a job whose parent died first escapes from SLURM, which tracks them here by their parents, not by cgroups.
sweep() {
  local place
  [ "${SLURM_CLUSTER_NAME:-}" != vaco ] || return 0 # or this script would be among them
  for place in /proc/[0-9]*; do
    if grep -qszxF SLURM_CLUSTER_NAME=vaco "$place/environ" &&
      grep -qsz "^SLURM_WORKING_CLUSTER=vaco:127[.]0[.]0[.]1:26817:" "$place/environ"; then
      kill -9 "${place#/proc/}" 2>/dev/null || :
    fi
  done
}

down() {
  allow_daemons
  if [ -e "$DIR/OURS" ]; then
    [ -O "$DIR" ] || fail "$DIR belongs to another user: only root can bring its cluster down"
    if ours && alive slurmctld && answers; then
      squeue -h -o %A 2>/dev/null | sort -u | xargs -r timeout 10 scancel || :
      within 15 no_jobs || :
    fi
    stop slurmd; stop slurmctld; stop munged
    sweep
    if ours; then rm -f "$CONF"; rmdir --ignore-fail-on-non-empty /etc/slurm; fi
    rm -rf "$DIR"
  fi
  if grep -qF "$HOSTS_MARK" /etc/hosts 2>/dev/null; then
    # Written in place: in a container /etc/hosts is a mount, which cannot be replaced.
    local kept
    kept=$(grep -vF "$HOSTS_MARK" /etc/hosts || :)
    printf '%s\n' "$kept" >/etc/hosts
  fi
  echo "slurm-cluster: down"
}

status() {
  if ours && alive slurmctld && alive slurmd && answers; then echo "slurm-cluster: up ($DIR)"; return; fi
  echo "slurm-cluster: down"; exit 3
}

prepare() {
  local problem
  trap allow_daemons EXIT
  trap 'exit 130' INT; trap 'exit 143' TERM; trap 'exit 129' HUP
  problem=$(obstacle)
  [ -z "$problem" ] || { echo "slurm-cluster: $problem" >&2; exit 3; }
  echo "slurm-cluster: a cluster can be started here"
}

# One at a time on this machine. The lock is on a folder that is everywhere, and is written to nowhere.
alone() {
  exec 9</etc
  flock --timeout 300 9 || fail "another slurm-cluster.sh has been at work for 5 minutes: end it, then try again"
}

case ${1:-} in
  up) alone; up ;;
  down) alone; down ;;
  prepare) alone; prepare ;;
  status) status ;;
  *) echo "usage: $0 up|down|status|prepare" >&2; exit 2 ;;
esac
