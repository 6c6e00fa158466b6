#!/usr/bin/env bash
# Run a command, or the same command for each of several jobs, on this machine, with a log for each. Takes the
# arguments of Kaldi's run.pl.
#
# Usage: run_jobs.sh [options] [JOB=1:<n> | JOB=<i>] <log> <command> <argument> ...
#  e.g.: utils/run_jobs.sh JOB=1:4 exp/log/count.JOB.log wc -l data/train/split4/JOB/utt2spk
#        utils/run_jobs.sh exp/log/sort.log sort data/train/utt2spk '|' head '>' first
#
#   --max-jobs-run n   number of jobs that run at the same time (default: the cores of this machine divided by
#                      --num-threads; with --gpu, its GPUs divided by --gpu)
#   --num-threads n    number of threads of a job (default: 1)
#   --gpu n            number of GPUs of a job (default: 0). Each job gets its own GPUs by CUDA_VISIBLE_DEVICES. They are
#                      taken from those in that variable; if it is not set, from all GPUs of the machine
#   others             (--mem 4G, --time 1:00:00, -q x, -l x, ...) are for queues and have no effect here
#
# JOB (or any other name) is replaced by the job's number in the log's name and in the command. The arguments are joined and
# passed to bash. So quoted "|", ">", ";" and "&&" act there. An argument with a space in it stays one argument.

. "$(dirname "$0")/job_lib.sh"
. "$(dirname "$0")/temporary_lib.sh"

parse_job "$@"
num_jobs=$((end - start + 1))

gpu=${opts[gpu]:-0}
gpus=()
if [ "$gpu" -gt 0 ]; then
  if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    IFS=, read -ra gpus <<< "$CUDA_VISIBLE_DEVICES"
  else
    mapfile -t gpus < <({ nvidia-smi -L 2> /dev/null || true; } | awk '/^GPU/ { print n++ }')
  fi
  [ ${#gpus[@]} -gt 0 ] || warn "WARNING: found no GPU (by CUDA_VISIBLE_DEVICES or nvidia-smi -L)"
fi
if [ -z "$max_jobs_run" ]; then
  if [ "$gpu" -gt 0 ]; then
    max_jobs_run=$((${#gpus[@]} / gpu))
  else
    # nproc would answer with these two if they are set
    max_jobs_run=$(($(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) / (num_threads > 0 ? num_threads : 1)))
  fi
  [ "$max_jobs_run" -ge 1 ] || max_jobs_run=1
fi
[ "$max_jobs_run" -le "$num_jobs" ] || max_jobs_run=$num_jobs

status_dir=$(temporary_folder "${TMPDIR:-/tmp}/speakerkd.jobs")
trap 'rm -rf "$status_dir"' EXIT
pids=()  # of the job in each of the max_jobs_run places

# Each job is a process group (set -m), so that what it started can be ended with it.
set -m
stop() {
  trap '' INT TERM HUP
  stop_progress
  local pid tries
  exec 3>&2 2> /dev/null  # bash would report each of them as terminated
  for pid in "${pids[@]}"; do kill -s TERM -- "-$pid" 2> /dev/null || true; done
  for ((tries = 0; tries < 50; tries++)); do
    for pid in "${pids[@]}"; do
      if kill -s 0 -- "-$pid" 2> /dev/null; then sleep 0.1; continue 2; fi
    done
    break
  done
  for pid in "${pids[@]}"; do kill -s KILL -- "-$pid" 2> /dev/null || true; done
  rm -rf "$status_dir"
  exec 2>&3
  warn "stopped by SIG$1; jobs were ended, logs are in $(log_of '*')"
  die_of "$1"
}
for signal in INT TERM HUP; do
  # shellcheck disable=SC2064
  trap "stop $signal" "$signal"
done

run_in_place() {
  local g mine=()
  trap - INT TERM HUP EXIT
  if [ ${#gpus[@]} -gt 0 ]; then
    for ((g = 0; g < gpu; g++)); do mine+=("${gpus[($1 * gpu + g) % ${#gpus[@]}]}"); done
    CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${mine[*]}")
    export CUDA_VISIBLE_DEVICES
  fi
  run_one_job "$2"
}

start_progress
for ((id = start; id <= end; id++)); do
  place=
  while [ -z "$place" ]; do
    for ((p = 0; p < max_jobs_run; p++)); do
      if [ -z "${pids[p]:-}" ] || ! kill -s 0 "${pids[p]}" 2> /dev/null; then place=$p; break; fi
    done
    [ -n "$place" ] || wait -n || true
  done
  run_in_place "$place" "$id" &
  pids[place]=$!
done
# Not all children: one of them shows the progress.
wait "${pids[@]}" || true
report_jobs
