#!/usr/bin/env bash
# Turn the options of a script into its variables, as Kaldi's file of the same name does.
#
# Source it after the defaults have been set:
#   stage=1
#   nj=4
#   . utils/parse_options.sh
# Then "--stage 3 --nj 8 a b" sets stage=3 and nj=8 and leaves "a b" as the arguments.
#
# - "--foo-bar v" and "--foo_bar v" both set foo_bar. The variable must have a default. A typo is an error that lists
#   the options.
# - A variable whose default is true or false takes only true or false.
# - "--config file" is sourced before the other options are read, so the command line wins. It may set only variables
#   that have a default.
# - "--help" prints $help_message. If there is none, it prints the comment at the head of the script.
# - A file of options that several scripts source sets _po_shared to its own path before. Its comment and its names are
#   then part of "--help" and of the list of options, after the script's own.

_po_file=$0
[ -r "$_po_file" ] || _po_file=./${0##*/}   # called by a relative path, and gone into its own folder since
_po_files=("$_po_file" ${_po_shared:+"$_po_shared"})
_po_die() { echo "$0: $*" >&2; exit 1; }

# The variables that the script, and the file of shared options, set before this file is sourced.
_po_allowed() {
  local file
  for file in "${_po_files[@]}"; do
    sed -n '/^[^#]*parse_options\.sh/q; /^_po_/d; s/^ *\([a-zA-Z_][a-zA-Z0-9_]*\)=.*/--\1/p' "$file"
  done | sort -u | tr '\n' ' '
}

_po_help() {
  if [ -n "${help_message:-}" ]; then
    printf '%s\n' "$help_message"
  else
    local file
    for file in "${_po_files[@]}"; do sed -n '2,${/^#/!q; /^# shellcheck /d; s/^# \{0,1\}//; p;}' "$file"; done
  fi
}

# Options come in pairs, up to the first argument that is none: a "--config" after it is not ours.
for ((_po_i = 1; _po_i <= $#; _po_i += 2)); do
  case "${!_po_i}" in
    --config) ;;
    --help | --*=*) break ;;
    --*) continue ;;
    *) break ;;
  esac
  _po_j=$((_po_i + 1))
  [ "$_po_j" -le $# ] || _po_die "--config needs a file"
  _po_config=${!_po_j}
  [ -f "$_po_config" ] && [ -r "$_po_config" ] || _po_die "--config: no such file: $_po_config"
  while IFS= read -r _po_name; do
    [[ $_po_name != _po_* ]] && [ -n "${!_po_name+set}" ] ||
      _po_die "$_po_config: no option '$_po_name' (allowed: $(_po_allowed))"
  done < <(sed -n 's/^ *\([a-zA-Z_][a-zA-Z0-9_]*\)=.*/\1/p' "$_po_config")
  case "$_po_config" in */*) ;; *) _po_config=./$_po_config ;; esac  # without a slash, "." would search PATH
  # shellcheck disable=SC1090
  . "$_po_config"
done

while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h)
      _po_help
      exit 0
      ;;
    --*=*) _po_die "write '${1%%=*} ${1#*=}', not '$1'" ;;
    --config) shift 2 ;;
    --*)
      _po_name=${1#--}
      _po_name=${_po_name//-/_}
      [[ $_po_name =~ ^[a-zA-Z_][a-zA-Z0-9_]*$ ]] || _po_die "not an option: '$1' (allowed: $(_po_allowed))"
      [[ $_po_name != _po_* ]] && [ -n "${!_po_name+set}" ] || _po_die "no option '$1' (allowed: $(_po_allowed))"
      [ $# -ge 2 ] || _po_die "option $1 needs a value"
      case "${!_po_name}" in
        true | false)
          case "$2" in
            true | false) ;;
            *) _po_die "option $1 takes true or false, not '$2'" ;;
          esac
          ;;
        *)
          if [[ ${!_po_name} =~ ^-?[0-9]+$ ]]; then
            [[ $2 =~ ^-?(0|[1-9][0-9]*)$ ]] || _po_die "option $1 takes a whole number, not '$2'"
          elif [[ ${!_po_name} =~ ^-?[0-9]*\.[0-9]+$ ]]; then
            [[ $2 =~ ^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$ ]] || _po_die "option $1 takes a number, not '$2'"
          fi
          ;;
      esac
      printf -v "$_po_name" '%s' "$2"
      shift 2
      ;;
    *) break ;;
  esac
done

[ -z "${cmd+set}" ] || [ -n "$cmd" ] || _po_die "--cmd is empty; name a job runner such as utils/run_jobs.sh"
unset _po_i _po_j _po_name _po_file _po_files _po_shared _po_config
unset -f _po_die _po_allowed _po_help
true
