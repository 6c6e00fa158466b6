#!/usr/bin/env bash
# Temporary folders. To be sourced.

# temporary_folder STEM: makes an empty folder STEM.<host>.<process>.<letters> and prints its name. Folders of this name
# that scripts killed on this machine have left are removed. The caller removes its own: trap 'rm -rf "$tmp"' EXIT
temporary_folder() {
  local start=$1.$HOSTNAME left pid
  for left in "$start".*.??????; do
    pid=${left#"$start".} pid=${pid%.*}
    if [[ $pid =~ ^[0-9]+$ ]] && [ -O "$left" ] && [ -d "$left" ] && [ -d /proc/self ] && [ ! -d "/proc/$pid" ]; then
      rm -rf "$left"
    fi
  done
  mktemp -d "$start.$$.XXXXXX"
}
