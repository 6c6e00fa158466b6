#!/usr/bin/env bash
# A Slurm of one node on this machine, for tests: its own configuration, key, sockets and ports, on localhost only.
#
# Usage: tests/slurm.sh install | start <folder> | stop <folder>
#  e.g.: tests/slurm.sh start /tmp/slurm && SLURM_CONF=/tmp/slurm/slurm.conf sinfo; tests/slurm.sh stop /tmp/slurm
#
# start and stop need root and Slurm. "install" installs Slurm with apt-get if that is possible. It never fails, because the
# tests that need Slurm are skipped without it. <folder> should have a short name (sockets are in it).

set -euo pipefail
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin

say() { echo "$0: $*" >&2; }

install() {
  if command -v slurmctld > /dev/null && command -v munged > /dev/null; then return 0; fi
  if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    say "Slurm is not here, and only root on Debian or Ubuntu can be given it; its tests will be skipped"
    return 0
  fi
  # The packages would start their own daemons, which nobody asked for.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge; } > /dev/null ||
    say "apt-get could not install Slurm; its tests will be skipped"
}

start() {
  local dir=$1 host port=27817 daemon
  for daemon in slurmctld slurmd munged; do
    command -v "$daemon" > /dev/null || { say "no $daemon here; try $0 install"; return 1; }
  done
  [ "$(id -u)" = 0 ] || { say "only root can start Slurm"; return 1; }
  host=$(hostname -s)
  mkdir -p "$dir/state" "$dir/spool"
  chmod 755 "$dir"
  # Any two ports that nobody has.
  while (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null || (exec 3<> "/dev/tcp/127.0.0.1/$((port + 1))") 2> /dev/null; do
    port=$((port + 2))
  done

  (umask 077 && head -c 128 /dev/urandom > "$dir/munge.key")
  munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/munged.log" --seed-file="$dir/munge.seed" || return 1
  cat > "$dir/slurm.conf" << END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
KillWait=2
MinJobAge=300
SchedulerParameters=sched_interval=2,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=1000 State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
  export SLURM_CONF=$dir/slurm.conf
  slurmctld -c -f "$SLURM_CONF" || return 1
  slurmd -f "$SLURM_CONF" -c || return 1
  for _ in $(seq 60); do
    if [ "$(sinfo -h -o %T 2> /dev/null)" = idle ]; then return 0; fi
    sleep 0.5
  done
  say "the node did not become idle in 30 s: $(sinfo -h -o %T 2>&1)"
  tail -n 5 "$dir"/*.log >&2
  return 1
}

# What is still running there is cancelled; then each daemon goes, by the id that it wrote itself.
stop() {
  local daemon pid
  export SLURM_CONF=$1/slurm.conf
  if [ -s "$1/slurmd.pid" ] && [ -n "$(squeue -h 2> /dev/null)" ]; then
    squeue -h -o %i | xargs scancel || true
    for _ in $(seq 20); do
      [ -n "$(squeue -h 2> /dev/null)" ] || break
      sleep 0.5
    done
  fi
  for daemon in slurmd slurmctld munged; do
    [ -s "$1/$daemon.pid" ] || continue
    pid=$(cat "$1/$daemon.pid")
    kill "$pid" 2> /dev/null || continue
    for _ in $(seq 50); do
      kill -0 "$pid" 2> /dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2> /dev/null || true
  done
}

case "${1:-} $#" in
  "install 1") install ;;
  "start 2")
    mkdir -p "$2"
    start "$(cd "$2" && pwd)" || { stop "$2"; exit 1; }
    ;;
  "stop 2") stop "$2" ;;
  "--help 1" | "-h 1") . "$(dirname "$0")/../utils/parse_options.sh" --help ;;
  *)
    "$0" --help >&2
    exit 1
    ;;
esac
