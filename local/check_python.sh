#!/usr/bin/env bash
# Checks that the stage scripts would run with the recipes' Python. If not, it says what to do.
#
# Usage: local/check_python.sh
python3 -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ["speakerkd", "torch", "kaldiio"])))' 2>/dev/null || {
  echo "$0: $(command -v python3 || echo python3) lacks the packages; run '. ./path.sh' in the recipe's folder first" >&2
  exit 1
}
