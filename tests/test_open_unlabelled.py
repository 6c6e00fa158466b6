"""egs/open/v1/compare_unlabelled.sh: who is trained on, with which copies, and what is compared. Nothing is trained."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, calls, replace_scripts

from speakerkd.files.tables import read_table, read_utt2spk, write_data_dir, write_table

Run = Callable[..., subprocess.CompletedProcess[str]]
STUBS = {
    "compare_kd.sh": 'echo "compare $*" >> calls\n',
    "make_fbank.sh": r"""for data; do :; done
awk '{ print $1, "x.ark:" NR }' "$data/utt2spk" > "$data/feats.scp"
""",
    "extract_xvectors.sh": r"""for out; do :; done
mkdir -p "$out"
echo x | tee "$out/mean.vec" > "$out/xvector.scp"
echo "extract $*" >> calls
""",
    "cluster_xvectors.py": r"""for out; do :; done
mkdir -p "$out"
echo x > "$out/feats.scp"
echo "cluster $*" >> calls
""",
}


@pytest.fixture
def folder(recipe: Path) -> Path:
    """The recipe with eight speakers of Speech Commands and two of speechocean762, four utterances each."""
    replace_scripts(recipe, STUBS)
    for name in ("compare_unlabelled.sh", "corpora.sh", "cmd.sh"):
        shutil.copy(ROOT / "egs/open/v1" / name, recipe)
    (recipe / "path.sh").write_text("")
    speakers = [f"commands-{number}" for number in range(8)] + ["ocean-1", "ocean-2"]
    utt2spk = {f"{speaker}-{take}": speaker for speaker in speakers for take in range(4)}
    write_data_dir(recipe / "data/train", dict.fromkeys(utt2spk, "x.wav"), utt2spk)
    write_table(recipe / "data/train/utt2dur", dict.fromkeys(utt2spk, "3.0"))
    for part in ("test", "dev"):
        (recipe / "data" / part).mkdir()
        for name in ("ocean", "commands"):
            (recipe / f"data/{part}/trials_{name}").write_text("a b target\n")
    return recipe


def speakers_of(folder: Path, name: str) -> Counter[str]:
    return Counter(read_utt2spk(folder / "data" / name / "utt2spk").values())


def test_data_methods_and_labels(folder: Path, sh: Run) -> None:
    sh("./compare_unlabelled.sh", "--kd_types", "sdpn dino none", "--seeds", "0 1")
    everyone = speakers_of(folder, "unlabelled_no_ocean_all")
    assert everyone == {f"commands-{number}": 20 for number in range(8)}  # four utterances, four copies of each
    originals = read_table(folder / "data/unlabelled_no_ocean_all/utt2uniq")
    copies = Counter(name.removeprefix(f"{first}-") for name, first in originals.items() if name != first)
    assert copies == dict.fromkeys(("reverb", "noise", "music", "babble"), 32)
    plain, labelled = calls(folder)
    assert plain[-4:] == [
        "data/unlabelled_no_ocean_all",
        "data/test",
        "data/test/trials_commands,data/test/trials_ocean",
        "exp/unlabelled",
    ]
    assert " ".join(plain).count("--kd-types sdpn dino --seeds 0 1 --reference dino") == 1
    assert "conf/train_unlabelled.conf" in plain and "conf/train_compare.conf" in labelled
    assert labelled[-1] == "exp/unlabelled/labels" and labelled[-4] == plain[-4] and "none" in labelled

    # as many utterances of each speaker, no copies, on the dev speakers; no corpus is left out
    even_and_clean = ("--per_speaker", "2", "--kinds", "", "--leave_out", "")
    sh("./compare_unlabelled.sh", *even_and_clean, "--dev", "true", "--kd_types", "sdpn")
    even = speakers_of(folder, "unlabelled_2_clean_all")
    assert len(even) == 10 and set(even.values()) == {2}
    (dev,) = calls(folder)
    assert dev[-3:-1] == ["data/dev", "data/dev/trials_commands,data/dev/trials_ocean"]


def test_clusters_have_a_set_for_each_seed(folder: Path, sh: Run) -> None:
    words = ("--kd_types", "sdpn", "--seeds", "0 3", "--clusters_of", "sdpn", "--num_clusters", "5")
    sh("./compare_unlabelled.sh", *words)
    made = calls(folder)
    assert [words[0] for words in made] == ["compare", *["extract", "cluster", "compare"] * 2]
    for seed, (extract, cluster, compare) in zip((0, 3), (made[1:4], made[4:7]), strict=True):
        system = f"exp/unlabelled/xvector_sdpn_s{seed}"
        assert extract[-3:] == [f"{system}/final.pt", "data/unlabelled_no_ocean", f"{system}/xvectors_train"]
        assert cluster[-3:-1] == [f"{system}/xvectors_train/xvector.scp", "data/unlabelled_no_ocean_all"]
        assert compare[-1] == f"exp/unlabelled/clusters/xvector_sdpn_5_s{seed}" and "5" in cluster
        assert cluster[-1] == compare[-4] == f"{compare[-1]}/data"
        assert f"--kd-types none --seeds {seed} " in " ".join(compare)
    sh("./compare_unlabelled.sh", *words)  # what is there is not made again
    assert [words[0] for words in calls(folder)] == ["compare"] * 3
    # other clusters, and two students: a folder each
    sh("./compare_unlabelled.sh", *words[:3], "0", *words[4:-1], "6", "--students", "xvector ecapa")
    made = calls(folder)
    assert [words[0] for words in made] == ["compare", "cluster", "compare", "extract", "cluster", "compare"]
    assert [made[number][-1] for number in (2, 5)] == [
        f"exp/unlabelled/clusters/{name}_sdpn_6_s0" for name in ("xvector", "ecapa")
    ]
    (folder / "exp/unlabelled/xvector_sdpn_s3/final.pt").touch()  # trained again
    sh("./compare_unlabelled.sh", *words)
    assert [words[0] for words in calls(folder)] == ["compare"] * 2 + ["extract", "cluster", "compare"]


def test_other_data_make_another_set(folder: Path, sh: Run) -> None:
    words = ("--kd_types", "sdpn", "--seeds", "0")
    sh("./compare_unlabelled.sh", *words)
    made = folder / "data/unlabelled_no_ocean_all/feats.scp"
    before = made.stat().st_mtime_ns
    sh("./compare_unlabelled.sh", *words)
    assert made.stat().st_mtime_ns == before
    (folder / "data/train/utt2spk").touch()
    sh("./compare_unlabelled.sh", *words)
    assert made.stat().st_mtime_ns > before


def test_what_is_wrong_is_said(folder: Path, sh: Run) -> None:
    assert "nothing is left" in sh("./compare_unlabelled.sh", "--leave_out", "ocean+commands", fails=True).stderr
    done = sh("./compare_unlabelled.sh", "--kd_types", "sdpn none", "--clusters_of", "none", fails=True)
    assert "these nets have learnt from the labels" in done.stderr
    assert "not among --kd_types" in sh("./compare_unlabelled.sh", "--clusters_of", "rdino", fails=True).stderr
    assert "takes a whole number" in sh("./compare_unlabelled.sh", "--per_speaker", "few", fails=True).stderr
    shutil.rmtree(folder / "data/train")
    assert "data/train is missing" in sh("./compare_unlabelled.sh", fails=True).stderr
