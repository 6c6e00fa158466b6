#!/usr/bin/env bash
# Put the recipes' Python, utils/ and the package on the paths. Sourced by each recipe's path.sh and by tests/run.sh.
#
# If the active environment (venv, conda, the system's Python) has the packages, it is used. Otherwise it is tools/venv,
# which tools/setup.sh makes if it is missing. $extras names extras of pyproject.toml that are needed too.

_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export LC_ALL=C
export PYTHONUNBUFFERED=1
export PYTHONPATH=$_root${PYTHONPATH:+:$PYTHONPATH}

# Looking for the packages takes no time. If they are found, they are loaded, to see whether they work together.
_has_packages() {
  "$1" - "${extras:-}" 2>/dev/null <<'EOF' && "$1" "$_root/tools/check_env.py" --quiet true >/dev/null 2>&1
import importlib.util, shutil, sys
names = ["torch", "torchaudio", "kaldiio", "numpy", "soundfile", "tqdm"]
if "dev" in sys.argv[1]:
    names += ["pytest", "ruff", "mypy", "hypothesis", "kaldi_native_io", "kaldi_native_fbank", "matplotlib"]
    names += ["transformers"] if sys.version_info >= (3, 11) else []
if "plot" in sys.argv[1]:
    names += ["matplotlib"]
programs = ["shellcheck"] if "dev" in sys.argv[1] else []
sys.exit(not (all(map(importlib.util.find_spec, names)) and all(map(shutil.which, programs))))
EOF
}

if [ "$(command -v python3 || true)" = "$_root/tools/venv/bin/python3" ] || ! _has_packages python3; then
  "$_root/tools/setup.sh" --extras "${extras:-}" || return 1
  export PATH=$_root/tools/venv/bin:$PATH
fi
unset _root
unset -f _has_packages
