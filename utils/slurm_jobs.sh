#!/usr/bin/env bash
# Run a command, or the same command for each of several jobs, as a Slurm job array, and wait for it. Takes the
# arguments of run_jobs.sh and of Kaldi's slurm.pl.
#
# Usage: slurm_jobs.sh [options] [JOB=1:<n> | JOB=<i>] <log> <command> <argument> ...
#  e.g.: utils/slurm_jobs.sh --mem 4G JOB=1:8 exp/log/count.JOB.log wc -l data/train/split8/JOB/utt2spk
#
#   --max-jobs-run n   number of jobs that run at the same time (default: as many as Slurm starts)
#   --gpu n, --mem 4G, --num-threads n, --time 1:00:00   what each job needs
#   --config file      what these mean to sbatch (default: conf/slurm.conf if it exists, else the lines below)
#   -x value           (one dash, such as -p long) is passed to sbatch; GridEngine's -V -l -q -j -sync are ignored
#
# The configuration has Kaldi's format. "command" is the start of the sbatch command. "option name=value" or "option name=*"
# gives what an option is replaced by; $0 is its value. "default name=value" holds if the option is not given.
#   command sbatch
#   option time=* --time=$0
#   option mem=0
#   option mem=* --mem=$0
#   option num_threads=* --ntasks=1 --cpus-per-task=$0
#   option gpu=0
#   option gpu=* --gres=gpu:$0
#
# The jobs run in this folder and environment (path.sh is sourced if it is here), with the log that run_jobs.sh writes.
# If a job leaves no exit status because it or its node was killed, it has failed. Slurm's own messages are in q/ beside the
# log.

. "$(dirname "$0")/job_lib.sh"

parse_job "$@"
command -v sbatch > /dev/null || die "no sbatch here; use run_jobs.sh in cmd.sh, or log in where Slurm is"

config=${opts[config]:-}
unset 'opts[config]'
[ -z "$config" ] || [ -r "$config" ] || die "--config: no such file: $config"
[ -n "$config" ] || [ ! -f conf/slurm.conf ] || config=conf/slurm.conf

declare -A meaning=()
sbatch=(sbatch)
while IFS= read -r line; do
  line=${line%%#*}
  [[ $line =~ [^[:space:]] ]] || continue
  if [[ $line =~ ^command[[:space:]]+(.+)$ ]]; then
    read -ra sbatch <<< "${BASH_REMATCH[1]}"
  elif [[ $line =~ ^option[[:space:]]+([A-Za-z0-9_]+=[^[:space:]]+)(.*)$ ]]; then
    meaning[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]}
  elif [[ $line =~ ^default[[:space:]]+([A-Za-z0-9_]+)=([^[:space:]]+) ]]; then
    [ -n "${opts[${BASH_REMATCH[1]}]+set}" ] || opts[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]}
  else
    die "$config: cannot read '$line' (lines start with command, option or default)"
  fi
done < <(if [ -n "$config" ]; then cat "$config"; else sed -nE 's/^#   (command|option) /\1 /p' "$0"; fi)

for name in "${!opts[@]}"; do
  value=${opts[$name]}
  if [ -n "${meaning[$name=$value]+set}" ]; then text=${meaning[$name=$value]}
  elif [ -n "${meaning[$name=*]+set}" ]; then text=${meaning[$name=*]//\$0/$value}
  else die "option --${name//_/-} $value has no meaning in ${config:-the built-in configuration}; add 'option $name=* ...'"
  fi
  read -ra words <<< "$text"
  sbatch+=(${words[@]+"${words[@]}"})
done
for ((i = 0; i < ${#passed[@]}; i += 2)); do
  case "${passed[i]}" in
    -l | -q | -j | -sync) ;;
    *) sbatch+=("${passed[i]}" "${passed[i + 1]}") ;;
  esac
done
[ -z "$jobname" ] || sbatch+=("--array=$start-$end${max_jobs_run:+%$max_jobs_run}")

# The script to submit, and what it leaves, go to a folder on the file system of the logs, which the nodes share.
name=$(basename "$logfile" .log)
logdir=$(dirname "$logfile")
[ -z "$jobname" ] || { name=${name//.$jobname/}; name=${name//"$jobname"/}; logdir=${logdir//"$jobname"/all}; }
mkdir -p "$logdir/q"
qdir=$(cd "$logdir/q" && pwd)
status_dir=$(mktemp -d "$qdir/${name:-job}.XXXXXX")
script=$qdir/${name:-job}.sh slurm_log=$qdir/${name:-job}.slurm
: > "$slurm_log"
# A log of an earlier run must not be taken for this one's.
for ((id = start; id <= end; id++)); do rm -f "$(log_of "$id")"; done
{
  echo '#!/usr/bin/env bash'
  printf 'cd %q || exit 1\n' "$PWD"
  printf '[ ! -f path.sh ] || . ./path.sh >> %q 2>&1\n' "$slurm_log"
  printf '. %q\n' "$utils/job_lib.sh"
  printf '%s=%q\n' jobname "$jobname" start "$start" logfile "$logfile" num_threads "$num_threads" \
    status_dir "$status_dir" command "$command"
  # shellcheck disable=SC2016
  echo 'run_one_job "${SLURM_ARRAY_TASK_ID:-$start}"'
} > "$script"

slurm_id=
stop() {
  trap '' INT TERM HUP
  stop_progress
  [ -z "$slurm_id" ] || scancel "$slurm_id" || true
  warn "stopped by SIG$1; Slurm job ${slurm_id:-(none yet)} was cancelled"
  rm -rf "$status_dir"
  die_of "$1"
}
for signal in INT TERM HUP; do
  # shellcheck disable=SC2064
  trap "stop $signal" "$signal"
done
trap 'rm -rf "$status_dir"' EXIT

slurm_id=$("${sbatch[@]}" --parsable --job-name="${name:-job}" --open-mode=append --output="$slurm_log" "$script") ||
  die "sbatch refused the job (${sbatch[*]}); see its message above, and ${config:-conf/slurm.conf, which would be read}"
slurm_id=${slurm_id%%;*}
start_progress

num_ended() { find "$status_dir" -type f ! -name '*.part' | wc -l; }

# Not sbatch --wait: it tells the exit status but not whose, and gives up if the controller is away for a while.
interval=1
while [ "$(num_ended)" -lt $((end - start + 1)) ]; do
  if left=$(squeue -h -j "$slurm_id" -o %i 2>&1); then
    [ -n "$left" ] || break
  elif [[ $left == *"Invalid job id"* ]]; then
    break  # it ended so long ago that Slurm has forgotten it
  fi  # any other failure: the controller does not answer now
  sleep "$interval" &
  wait $! || true  # unlike sleep itself, wait is cut short by a signal
  [ "$interval" -ge 10 ] || interval=$((interval + 1))
done
# A network file system may show what the last jobs wrote only after some seconds.
for ((i = 0; i < 10 && $(num_ended) < end - start + 1; i++)); do sleep 1; done

if ! report_jobs; then
  [ ! -s "$slurm_log" ] || { warn "Slurm says (in $slurm_log):"; tail -n 5 "$slurm_log" | sed 's/^/  | /' >&2; }
  exit 1
fi
