#!/usr/bin/env bash
# What the job runners share: Kaldi's way of writing a job on the command line, and of logging it. To be sourced:
# . "$(dirname "$0")/job_lib.sh"
#
# A job is: [options] [JOB=1:N | JOB=n] <log> <command> <argument> ...
# The environment is left as it is (no LC_ALL): it is the command's.

set -euo pipefail
utils=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

warn() { echo "$0: $*" >&2; }
die() { warn "$@"; exit 1; }

show_help() {
  # shellcheck disable=SC1091
  . "$utils/parse_options.sh" --help
}

# parse_job "$@": sets opts[name] (of --name value), passed (of -x value), max_jobs_run (empty if not given), jobname,
# start, end, logfile and command.
parse_job() {
  declare -gA opts=()
  passed=() max_jobs_run='' jobname='' start=1 end=1
  while [ $# -gt 0 ]; do
    case "$1" in
      --help | -h) show_help ;;
      -V) shift; continue ;;
      --*=*) die "write '${1%%=*} ${1#*=}', not '$1'" ;;
      -*)
        [ $# -ge 2 ] || die "option $1 needs a value"
        [[ $2 != --* ]] || warn "WARNING: option $1 has the odd value '$2'"
        ;;&
      --max-jobs-run | --max_jobs_run | -tc)
        [[ $2 =~ ^[1-9][0-9]*$ ]] || die "$1 takes a positive integer, not '$2'"
        # The smallest counts, so that a recipe can bound what cmd.sh allows.
        [ -n "$max_jobs_run" ] && [ "$max_jobs_run" -le "$2" ] || max_jobs_run=$2
        shift 2
        ;;
      -pe)  # GridEngine's: -pe smp 4
        [ $# -ge 3 ] || die "option -pe needs two values"
        opts[num_threads]=$3
        shift 3
        ;;
      --*)
        local name=${1#--}
        opts[${name//-/_}]=$2
        shift 2
        ;;
      -*)
        passed+=("$1" "$2")
        shift 2
        ;;
      *)
        if [ -z "$jobname" ] && [[ $1 =~ ^([A-Za-z_][A-Za-z0-9_]*)=([0-9]+)(:([0-9]+))?$ ]]; then
          jobname=${BASH_REMATCH[1]}
          start=$((10#${BASH_REMATCH[2]}))
          end=$start
          [ -z "${BASH_REMATCH[3]}" ] || end=$((10#${BASH_REMATCH[4]}))
          [ "$start" -ge 1 ] && [ "$start" -le "$end" ] || die "'$1' is not a range of jobs that starts at 1 or later"
          shift
        else
          [[ $1 != ?*=*:* ]] || warn "WARNING: taking '$1' as the log file; is it meant as a range of jobs?"
          break
        fi
        ;;
    esac
  done
  if [ $# -lt 2 ]; then
    (show_help) >&2
    exit 1
  fi
  logfile=$1
  shift
  [ -z "$jobname" ] || [ "$start" = "$end" ] || [[ $logfile == *"$jobname"* ]] ||
    die "$((end - start + 1)) jobs cannot share the log $logfile; put $jobname in its name"
  for name in gpu num_threads; do
    [[ ${opts[$name]:-0} =~ ^[0-9]+$ ]] || die "--${name/_/-} takes a number, not '${opts[$name]}'"
  done
  num_threads=${opts[num_threads]:-1}

  # Kaldi's rule: an argument without white space is left to bash as it is, so "|" is a pipe; one with white space
  # stays one argument, in single quotes if it has a double quote in it, otherwise in double quotes.
  local arg
  command=
  for arg; do
    if [ -n "$arg" ] && [[ $arg != *[[:space:]]* ]]; then command+="$arg "
    elif [[ $arg == *\"* ]]; then command+="'$arg' "
    else command+="\"$arg\" "
    fi
  done
}

log_of() { if [ -n "$jobname" ]; then echo "${logfile//"$jobname"/$1}"; else echo "$logfile"; fi; }

# run_one_job ID: runs $command with its log, and leaves its exit status in $status_dir/ID.
# shellcheck disable=SC2154  # status_dir is set by the script
run_one_job() {
  local id=$1 line=$command log code=0 begun
  log=$(log_of "$id")
  [ -z "$jobname" ] || line=${line//"$jobname"/$id}
  mkdir -p "$(dirname "$log")"
  begun=$(date +%s)
  {
    echo "# $line"
    echo "# Started at $(date)"
    [ -z "${SLURM_JOB_ID:-}" ] || echo "# Running on $HOSTNAME as Slurm job $SLURM_JOB_ID"
    echo "#"
  } > "$log"
  # By standard input, as a command may be longer than an argument can be. Unlike here, no -e and no pipefail there.
  bash <<< "( $line
)" >> "$log" 2>&1 || code=$?
  {
    echo "# Accounting: time=$(($(date +%s) - begun)) threads=$num_threads"
    echo "# Ended (code $code) at $(date), elapsed time $(($(date +%s) - begun)) seconds"
  } >> "$log"
  echo "$code" > "$status_dir/$id.part"
  mv "$status_dir/$id.part" "$status_dir/$id"
}

# start_progress: on a terminal, one live line says how many jobs have ended and what the newest log says last. It never
# shows where stderr is a file or a pipe, or where SPEAKERKD_PROGRESS=false.
progress_pid=
start_progress() {
  [ -t 2 ] && [ "${SPEAKERKD_PROGRESS:-true}" != false ] || return 0
  show_progress &
  progress_pid=$!
}

show_progress() {
  local ended newest log logs said total=$((end - start + 1)) width begun=$SECONDS
  trap 'exit 0' TERM INT HUP
  while sleep 1; do
    [ -d "$status_dir" ] || exit 0
    ended=$(find "$status_dir" -type f ! -name '*.part' 2> /dev/null | wc -l)
    mapfile -t logs < <(compgen -G "$(log_of '*')" || true)
    newest=
    for log in "${logs[@]}"; do [ -n "$newest" ] && [ "$newest" -nt "$log" ] || newest=$log; done
    said=
    [ -z "$newest" ] || said=$(tail -n 1 -- "$newest" 2> /dev/null | tr -d '\r' | sed 's/^[A-Za-z_]*\.py: //; /^#/d')
    width=$(tput cols 2> /dev/null || echo 80)
    said="  $(basename "${logfile%%."${jobname:-log}"*}" .log): $([ "$total" = 1 ] || echo "$ended of $total jobs, ")$((SECONDS - begun)) s${said:+; $said}"
    printf '\r\033[K%s' "${said:0:width - 1}" >&2
  done
}

stop_progress() {
  [ -n "$progress_pid" ] || return 0
  kill "$progress_pid" 2> /dev/null || true
  wait "$progress_pid" 2> /dev/null || true
  progress_pid=
  printf '\r\033[K' >&2
}

# report_jobs: status 0 if all jobs ended with 0; else says which did not, and shows the end of the first one's log.
report_jobs() {
  local id code first failed=() unknown=() total=$((end - start + 1))
  stop_progress
  for ((id = start; id <= end; id++)); do
    code=
    [ ! -f "$status_dir/$id" ] || read -r code < "$status_dir/$id"
    [ "$code" = 0 ] || failed+=("$id")
    [ -n "$code" ] || unknown+=("$id")
  done
  [ ${#failed[@]} -gt 0 ] || return 0
  first=$(log_of "${failed[0]}")
  if [ "$total" = 1 ]; then
    warn "job failed, log is in $first"
    [ -n "$jobname" ] || [[ $logfile != *JOB* ]] || warn "is JOB=1:\$nj missing on the command line?"
  else
    warn "${#failed[@]} / $total failed, log is in ${logfile//"$jobname"/*} (failed: ${failed[*]})"
  fi
  [ ${#unknown[@]} = 0 ] || warn "ended without an exit status (killed?): ${unknown[*]}"
  if [ -f "$first" ]; then
    # torchrun writes lines of its own after those of the processes, so their errors may stand far from the end.
    grep -E '^[A-Za-z0-9_]+\.py: error: ' "$first" | sort -u | head -n 3 > "$status_dir/errors" || true
    if [ -s "$status_dir/errors" ] && ! tail -n 10 "$first" | grep -qFf "$status_dir/errors"; then
      warn "$first says:"
      sed 's/^/  | /' "$status_dir/errors" >&2
    fi
    warn "the end of $first:"
    tail -n 10 "$first" | sed 's/^/  | /' >&2
  fi
  return 1
}

# die_of SIGNAL: as if the signal had not been caught, so that the calling script stops too.
die_of() {
  trap - "$1"
  kill -s "$1" $$
}
