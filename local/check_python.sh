#!/usr/bin/env bash
# Is the Python that stage scripts would run with the one of the recipes? Says what to do if not; takes no time if so.
#
# Usage: local/check_python.sh
python3 -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ["speakerkd", "torch", "kaldiio"])))' 2>/dev/null || {
  echo "$0: $(command -v python3 || echo python3) lacks the packages; run '. ./path.sh' in the recipe's folder first" >&2
  exit 1
}
