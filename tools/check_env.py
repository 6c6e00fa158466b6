#!/usr/bin/env python3
"""Says what the recipes need, what of it is installed, and what to do about the rest.

Usage: tools/check_env.py [--quiet true]
Exit status 0: the recipes can run. This script needs only Python, so it works if everything else is missing.
"""

import importlib
import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = {
    "onnxruntime": "onnx, face: foreign encoders",
    "PIL": "face: images",
    "pytest": "dev: tests",
}
# Of the pinned packages, those without which the recipes still run.
LUXURIES = {"matplotlib": "no pictures of curves and scores; remedy: pip install matplotlib"}
PROGRAMS = {
    "flock": "set-ups that are started together wait for each other (util-linux)",
    "apt-get": "egs/mini fetches its recordings (or give it --debs)",
    "dpkg-deb": "egs/mini unpacks them",
    "ffmpeg": "egs/voxceleb reads m4a",
    "sbatch": "utils/slurm_jobs.sh",
}


def pins() -> dict[str, str]:
    found = {}
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        name, _, version = line.split("#")[0].strip().partition("==")
        if name:
            found[name] = version
    return found


def check_package(name: str, wanted: str) -> tuple[bool, str]:
    """(usable, text). Only loading shows whether torch and torchaudio match."""
    try:
        importlib.import_module(name)
        version = importlib.metadata.version(name)
    except (ImportError, OSError, importlib.metadata.PackageNotFoundError) as error:
        return False, f"{type(error).__name__}: {error}"
    same = version.split("+")[0] == wanted
    return True, version if same else f"{version} (the recipes are tried with {wanted})"


def main() -> int:
    arguments = sys.argv[1:]
    if arguments not in ([], ["--quiet", "true"], ["--quiet", "false"]):
        print(__doc__)
        return 0 if "--help" in arguments or "-h" in arguments else 1
    lines: list[str] = []
    bad = False
    ok_python = (3, 10) <= sys.version_info[:2] <= (3, 12)
    lines.append(
        f"{'ok' if ok_python else 'WRONG':8}python {sys.version.split()[0]} {'' if ok_python else '(3.10 to 3.12)'}"
    )
    bad |= not ok_python
    for name, wanted in pins().items():
        usable, text = check_package(name, wanted)
        if not usable and name in LUXURIES:
            lines.append(f"{'-':8}{name} is not there: {LUXURIES[name]}")
            continue
        bad |= not usable
        lines.append(f"{'ok' if usable else 'MISSING':8}{name} {text}")
    for name, use in EXTRAS.items():
        lines.append(f"{'ok' if importlib.util.find_spec(name) else '-':8}{name} (optional, {use})")
    for name, use in PROGRAMS.items():
        lines.append(f"{'ok' if shutil.which(name) else '-':8}{name} (optional: {use})")
    kaldi = os.environ.get("KALDI_ROOT", "")
    lines.append(f"{'ok' if kaldi else '-':8}KALDI_ROOT {kaldi or 'is not set'} (optional: back-ends of Kaldi itself)")
    if not bad:
        import torch

        gpus = torch.cuda.device_count()
        lines.append(f"{'ok':8}{len(os.sched_getaffinity(0))} cores, {gpus} CUDA device(s)")
    if "true" not in arguments or bad:
        print("\n".join(lines))
        print("Run tools/setup.sh, which makes tools/venv with the versions above." if bad else "The recipes can run.")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
