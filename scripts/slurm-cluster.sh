#!/usr/bin/env bash
# A throw-away SLURM cluster of one node, to test the slurm profile against real daemons.
#
#   scripts/slurm-cluster.sh up       install what is missing, configure, start, run a first job; does nothing if it is up
#   scripts/slurm-cluster.sh down     cancel its jobs, stop its daemons, remove all that 'up' wrote; does nothing if down
#   scripts/slurm-cluster.sh status   say whether it is up; exit code 0 or 3
#
# For Debian or Ubuntu as root, in a machine or container of your own. It refuses to start where /etc/slurm/slurm.conf
# exists and is not its own, so it cannot get in the way of a real cluster. All its files are in one folder
# ($VACO_SLURM_DIR, default /tmp/vaco-slurm), apart from the link /etc/slurm/slurm.conf (the nested srun of Snakemake's
# plugin reads nothing else) and, where the host name does not resolve, one marked line in /etc/hosts.
# $VACO_SLURM_CPUS (default 8) is how many processors the node claims to have; it may exceed the real number.
set -euo pipefail

DIR=${VACO_SLURM_DIR:-/tmp/vaco-slurm}
CPUS=${VACO_SLURM_CPUS:-8}
CONF=/etc/slurm/slurm.conf
HOSTS_MARK="# added by vaco scripts/slurm-cluster.sh"
HOST=$(hostname -s)
export PATH="$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive
unset SLURM_CONF

fail() { echo "slurm-cluster: $*" >&2; exit 1; }

# The process of a daemon of ours; a pid file may outlive its process, and the pid may by then be somebody else's.
pid() {
  local number
  number=$(cat "$DIR/$1.pid" 2>/dev/null) && [ -n "$number" ] || return 1
  [ "$(cat "/proc/$number/comm" 2>/dev/null)" = "$1" ] && echo "$number"
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

install_missing() {
  local tool missing=
  for tool in slurmctld slurmd munged sbatch srun; do command -v "$tool" >/dev/null || missing="$missing $tool"; done
  [ -n "$missing" ] || return 0
  command -v apt-get >/dev/null || fail "missing:$missing, and there is no apt-get to install them with: install SLURM and munge"
  # Removing packages later could remove what others installed meanwhile, so 'down' leaves them.
  apt-get update -qq || fail "missing:$missing, and 'apt-get update' failed: install slurmctld, slurmd, slurm-client and munge"
  # The packages must not start daemons of their own, which would listen on the same ports.
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; made=1; fi
  local done_well=1
  apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null || done_well=
  if [ -n "$made" ]; then rm -f "$policy"; fi
  [ -n "$done_well" ] || fail "missing:$missing, and apt-get could not install them: install slurmctld, slurmd, slurm-client and munge"
}

write_configuration() {
  local memory
  memory=$(awk '/MemTotal/{print int($2 / 1024 * .9)}' /proc/meminfo)
  mkdir -p "$DIR"/{controller,node} /etc/slurm
  chmod 755 "$DIR"
  echo "throw-away cluster of vaco; scripts/slurm-cluster.sh down removes this folder" >"$DIR/OURS"
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
KillWait=5
OverTimeLimit=0
ReturnToService=2
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=$memory State=UNKNOWN
PartitionName=test Nodes=$HOST Default=NO MaxTime=60 State=UP
CONF
  ln -sfn "$DIR/slurm.conf" "$CONF"
}

up() {
  if ours && alive slurmctld && alive slurmd && alive munged && answers; then echo "slurm-cluster: already up ($DIR)"; return; fi
  [ "$(id -u)" = 0 ] || fail "starting daemons and writing $CONF needs root: run it in a container of your own"
  if { [ -e "$CONF" ] || [ -L "$CONF" ]; } && ! ours; then
    fail "$CONF exists and is not ours, so this machine seems to belong to a cluster: use another machine or container"
  fi
  if [ -e "$DIR" ] && [ ! -e "$DIR/OURS" ]; then
    fail "$DIR exists and is not ours: give another folder with VACO_SLURM_DIR"
  fi
  down >/dev/null # what a crashed 'up' or a reboot left
  install_missing
  if ! getent hosts "$HOST" >/dev/null; then echo "127.0.0.1 $HOST $HOSTS_MARK" >>/etc/hosts; fi
  write_configuration
  munged --key-file="$DIR/munge.key" --socket="$DIR/munge.sock" --pid-file="$DIR/munged.pid" \
    --log-file="$DIR/munged.log" --seed-file="$DIR/munged.seed" 2>>"$DIR/start.log"
  slurmctld -c 2>>"$DIR/start.log"
  slurmd 2>>"$DIR/start.log"
  within 20 idle || :
  if ! timeout 30 srun --partition test --ntasks 1 true; then
    tail -n 15 "$DIR"/*.log >&2
    down
    fail "the daemons started but a first job failed; their last words are above"
  fi
  echo "slurm-cluster: up ($DIR), $(sinfo -h -o 'partition %P, %c processors, %m MB')"
}

stop() {
  local number
  number=$(pid "$1") || return 0
  kill "$number" 2>/dev/null || :
  within 10 gone "$1" || kill -9 "$number" 2>/dev/null || :
}

down() {
  if [ -e "$DIR/OURS" ]; then
    if ours && alive slurmctld && answers; then
      squeue -h -o %A 2>/dev/null | sort -u | xargs -r timeout 10 scancel || :
      within 15 no_jobs || :
    fi
    stop slurmd; stop slurmctld; stop munged
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

case ${1:-} in
  up) up ;;
  down) down ;;
  status) status ;;
  *) echo "usage: $0 up|down|status" >&2; exit 2 ;;
esac
