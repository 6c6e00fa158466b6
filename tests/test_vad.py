"""Speech decisions: Kaldi's own, from filterbanks alone; where the energy comes from; what is refused."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import kaldi_native_fbank
import kaldi_native_io
import kaldiio
import numpy as np
import pytest
from conftest import ROOT, noise, write_wav

from speakerkd.audio.recordings import mono, read_audio
from speakerkd.conf import read_conf
from speakerkd.feats.fbank import Fbank, FbankConf
from speakerkd.feats.frontend import KaldiConf, KaldiFrontEnd
from speakerkd.feats.source import feature_source
from speakerkd.feats.vad import VadConf, energy_vad
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import Segment, read_table, write_data_dir, write_table
from speakerkd.models import load_net

Run = Callable[..., subprocess.CompletedProcess[str]]
GOLDEN = ROOT / "tests/data/kaldi-golden"
GOLDEN_VAD = VadConf(5.5, 0.5, 2, 0.12)  # as COMMANDS says, and conf/vad.conf


def golden_text(name: str) -> dict[str, np.ndarray]:
    entries: dict[str, list[str]] = {}
    for line in (GOLDEN / name).read_text().splitlines():
        if "[" in line:
            key = line.split()[0]
            entries[key] = []
        entries[key].append(line.split("[")[-1].replace("]", ""))
    return {key: np.array([row.split() for row in rows if row.split()], np.float32) for key, rows in entries.items()}


def decisions_of(data: Path) -> dict[str, np.ndarray]:
    """vad.scp by a reader of Kaldi's C++."""
    with kaldi_native_io.SequentialFloatVectorReader(f"scp:{data}/vad.scp") as reader:
        return {key: np.array(value) for key, value in reader}


def words_and_pauses(seconds: float, seed: int) -> np.ndarray:
    """Half seconds of noise, loud, softer and near silence, so that the decisions depend on the utterance's mean."""
    wave = noise(seconds, seed=seed)
    loudness = np.random.default_rng(seed).choice([1, 0.1, 0.01, 0.001], 1 + len(wave) // 8000)
    return (wave * loudness[np.arange(len(wave)) // 8000]).astype(np.float32)


@pytest.fixture
def data(recipe: Path) -> Path:
    """Four utterances of two speakers, with features."""
    wavs = {f"s{i // 2}-{i}": write_wav(recipe / f"wav/{i}.wav", words_and_pauses(3 + i / 7, i)) for i in range(4)}
    write_data_dir(recipe / "data/x", {utt: str(path) for utt, path in wavs.items()}, {utt: utt[:2] for utt in wavs})
    return recipe / "data/x"


def by_kaldi_native(path: str) -> np.ndarray:
    """The first column of MFCCs with Kaldi's defaults: the raw log energy."""
    options = kaldi_native_fbank.MfccOptions()
    options.frame_opts.dither = 0.0
    online = kaldi_native_fbank.OnlineMfcc(options)
    samples, rate = read_audio(path)
    online.accept_waveform(rate, (mono(samples) * 32768).tolist())
    online.input_finished()
    return np.array([online.get_frame(index)[0] for index in range(online.num_frames_ready)])


def test_the_rule_equals_kaldis() -> None:
    decisions = golden_text("vad-energy.txt")
    for key, features in kaldiio.load_ark(str(GOLDEN / "fbank64-energy.ark")):
        assert np.array_equal(energy_vad(features[:, 0], GOLDEN_VAD), decisions[key][0])
    decisions = golden_text("vad-mfcc.txt")
    for key, features in golden_text("mfcc30.txt").items():
        assert np.array_equal(energy_vad(features[:, 0], GOLDEN_VAD), decisions[key][0])


def test_by_hand() -> None:
    energy = np.array([0, 0, 9, 0, 0, 0, 0, 0, 0, 0], np.float32)
    none = VadConf(5.0, 0.0, 0, 0.6)
    assert energy_vad(energy, none).tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    # One of five frames, of four at 1 and of three at 0 is above: 0.2, 0.25, 0.33.
    fifth = replace(none, vad_frames_context=2, vad_proportion_threshold=0.2)
    assert energy_vad(energy, fifth).tolist() == [1, 1, 1, 1, 1] + [0] * 5
    quarter = replace(none, vad_frames_context=2, vad_proportion_threshold=0.24)
    assert energy_vad(energy, quarter).tolist() == [1, 1] + [0] * 8
    assert energy_vad(energy + 5, replace(none, vad_energy_mean_scale=0.5)).tolist()[:4] == [0, 0, 1, 0]
    with pytest.raises(ValueError, match="proportion"):
        VadConf(vad_proportion_threshold=1.0)


@pytest.mark.parametrize("change", [{}, {"dither": 1.0}, {"remove_dc_offset": False}, {"snip_edges": False}])
def test_raw_log_energy_is_the_energy_column_of_the_features(change: dict) -> None:
    conf = replace(FbankConf(dither=0.0), **change)
    wave = words_and_pauses(7.0, 3)
    column = Fbank(replace(conf, use_energy=True))(wave, 5)[:, 0]
    assert np.array_equal(Fbank(conf).raw_log_energy(wave, 5), column)
    assert Fbank(conf).raw_log_energy(wave[:3]).shape == (0,)


def test_from_filterbanks_alone_the_decisions_are_kaldis_own(recipe: Path, sh: Run) -> None:
    """Kaldi's chain is compute-mfcc-feats and compute-vad with conf/vad.conf; ours never makes MFCCs."""
    theirs = golden_text("vad-mfcc.txt")
    wavs = {key: str(GOLDEN / f"{key}.wav") for key in theirs}
    write_data_dir(recipe / "data/x", wavs, {key: key for key in wavs})
    (recipe / "fbank.conf").write_text("--num-mel-bins=80\n--dither=0\n--snip-edges=false\n")
    sh("local/make_fbank.sh", "--nj", 2, "--fbank-config", "fbank.conf", "data/x")
    done = sh("local/compute_vad.sh", "--nj", 2, "data/x")
    assert "log energy: the raw energy of the recordings (wav.scp)" in done.stdout
    ours = decisions_of(recipe / "data/x")
    assert ours.keys() == theirs.keys()
    for key, each in theirs.items():
        assert np.array_equal(ours[key], each[0]), key
    share = 100 * np.mean(np.concatenate([each[0] for each in theirs.values()]))
    assert f"{len(theirs)} of {len(theirs)} utterances, {share:.1f} % speech" in done.stdout
    sh("utils/validate_data_dir.sh", "data/x")


def test_recordings_with_pauses(data: Path, sh: Run) -> None:
    sh("local/make_fbank.sh", "--nj", 2, data)
    sh("local/compute_vad.sh", "--nj", 3, data)
    ours, waves = decisions_of(data), read_table(data / "wav.scp")
    theirs = {utt: energy_vad(by_kaldi_native(path), GOLDEN_VAD) for utt, path in waves.items()}
    assert 0.2 < np.concatenate(list(theirs.values())).mean() < 0.95
    assert all(np.array_equal(ours[utt], theirs[utt]) for utt in theirs)


def test_copies_and_segments(recipe: Path, data: Path, sh: Run) -> None:
    """What is heard in the copy, at its own speed; a segment is a part of its recording."""
    sh("local/augment_data_dir.py", "--kinds", "noise", "--noise-snrs", "-10", "--speeds", "0.9", data, "data/aug")
    sh("local/make_fbank.sh", "--nj", 2, "data/aug")
    sh("local/make_fbank.sh", "--nj", 1, data)
    for folder in (data, "data/aug"):
        sh("local/compute_vad.sh", "--nj", 1, folder)
    originals, copies = decisions_of(data), decisions_of(recipe / "data/aug")
    frames = read_table(recipe / "data/aug/utt2num_frames")
    assert {utt: str(len(each)) for utt, each in copies.items()} == frames
    assert copies["s0-0-noise"].mean() > originals["s0-0"].mean() + 0.1, "the noise fills the pauses"
    assert len(copies["sp0.9-s0-0"]) > len(originals["s0-0"])
    assert abs(copies["sp0.9-s0-0"].mean() - originals["s0-0"].mean()) < 0.05

    segments = {"s0-0-b": Segment("s0-0", 0.5, 2.0), "s0-0-c": Segment("s0-0", 2.0, -1)}
    write_data_dir(
        recipe / "data/cut", {"s0-0": read_table(data / "wav.scp")["s0-0"]}, dict.fromkeys(segments, "s0"), segments
    )
    sh("local/make_fbank.sh", "--nj", 1, "data/cut")
    sh("local/compute_vad.sh", "--nj", 1, "data/cut")
    wave = mono(read_audio(str(recipe / "wav/0.wav"))[0])
    energy = Fbank(FbankConf(dither=0.0)).raw_log_energy(wave[8000:32000])
    assert np.array_equal(decisions_of(recipe / "data/cut")["s0-0-b"], energy_vad(energy, GOLDEN_VAD))


@pytest.mark.parametrize("column", [0, -1])
def test_an_energy_column_is_taken_as_it_is(recipe: Path, data: Path, sh: Run, column: int) -> None:
    (recipe / "fbank.conf").write_text(
        f"--num-mel-bins=24\n--dither=0\n--use-energy=true\n--htk-compat={'true' if column else 'false'}\n"
    )
    sh("local/make_fbank.sh", "--nj", 1, "--compress", "false", "--fbank-config", "fbank.conf", data)
    shutil.rmtree(recipe / "wav")  # not needed any more
    done = sh("local/compute_vad.sh", "--nj", 1, data)
    assert f"log energy: column {column} of the features (--use-energy=true in " in done.stdout
    with kaldi_native_io.SequentialFloatMatrixReader(f"scp:{data}/feats.scp") as reader:
        columns = {key: np.array(value)[:, column] for key, value in reader}
    ours = decisions_of(data)
    assert all(np.array_equal(ours[key], energy_vad(each, GOLDEN_VAD)) for key, each in columns.items())


def test_features_of_kaldis_own_have_the_energy_in_column_0(recipe: Path, sh: Run) -> None:
    mfccs = golden_text("mfcc30.txt")
    write_data_dir(recipe / "data/x", dict.fromkeys(mfccs, "x"), {key: key for key in mfccs})
    with ArkWriter(recipe / "data/x/data/raw_mfcc_x.1") as write:
        for key, features in mfccs.items():
            write(key, features)
    shutil.copy(recipe / "data/x/data/raw_mfcc_x.1.scp", recipe / "data/x/feats.scp")
    done = sh("local/compute_vad.sh", "--nj", 1, "data/x")
    assert "log energy: column 0 of the features, as in Kaldi (there is no conf/fbank.conf)" in done.stdout
    theirs, ours = golden_text("vad-mfcc.txt"), decisions_of(recipe / "data/x")
    assert all(np.array_equal(ours[key], theirs[key][0]) for key in theirs)


def as_kaldi_copies(source: Path, dest: Path) -> Path:
    """What Kaldi's own copy_data_dir.sh (f400766) takes along of the files that there are here."""
    dest.mkdir(parents=True)
    for name in (
        "utt2spk",
        "spk2utt",
        "wav.scp",
        "segments",
        "feats.scp",
        "utt2uniq",
        "utt2dur",
        "utt2num_frames",
        "frame_shift",
    ):
        if (source / name).exists():
            shutil.copy(source / name, dest / name)
    return dest


def test_the_conf_file_beside_the_archives_is_found(recipe: Path, data: Path, sh: Run) -> None:
    sh("local/make_fbank.sh", "--nj", 2, data)
    sh("local/compute_vad.sh", "--nj", 1, data)
    lost = as_kaldi_copies(data, recipe / "data/lost")
    done = sh("local/compute_vad.sh", "--nj", 1, lost)
    assert "log energy: the raw energy of the recordings" in done.stdout
    ours, expected = decisions_of(lost), decisions_of(data)
    assert all(np.array_equal(ours[utt], expected[utt]) for utt in expected)

    (data / "data/raw_fbank_x.conf").unlink()  # as made by earlier versions
    done = sh("local/compute_vad.sh", "--nj", 1, lost, fails=True)
    assert "the features are filterbanks (raw_fbank_x.1.ark:" in done.stderr
    assert "Copy conf/ from the directory that the features were made in" in done.stderr
    assert not (lost / "vad.scp").exists()


def test_copies_that_lost_their_utt2aug(recipe: Path, data: Path, sh: Run) -> None:
    sh("local/augment_data_dir.py", "--kinds", "noise", "--speeds", "0.9", data, "data/aug")
    for folder in (data, "data/aug"):
        sh("local/make_fbank.sh", "--nj", 1, folder)
    sh("utils/combine_data.sh", "data/all", data, "data/aug")
    assert sh("utils/check_copies.sh", "data/all").stderr == ""
    lost = as_kaldi_copies(recipe / "data/all", recipe / "data/lost")
    for script in ("make_fbank", "compute_vad"):
        done = sh(f"local/{script}.sh", "--nj", 1, lost, fails=True)
        assert "data/lost has augmented copies but no utt2aug" in done.stderr
        assert "s0-0 and s0-0-noise have the same recording (12 such)" in done.stderr
    assert (lost / "feats.scp").exists()  # refused before anything was removed
    ear = KaldiFrontEnd(KaldiConf(num_mel_bins=30))  # an extraction that must read the recordings
    with pytest.raises(ValueError, match=r"augmented copies but no utt2aug.* have the same recording"):
        feature_source(ear, lost, lost / "feats.scp", "final.pt")
    feature_source(ear, recipe / "data/all", recipe / "data/all/feats.scp", "final.pt")
    shutil.copy(recipe / "data/all/utt2aug", lost)  # the remedy; generated noise has no aug.scp
    sh("local/compute_vad.sh", "--nj", 1, lost)

    # Copies alone, one of a recording: not certain, so it is said. A change of length is noticed by the VAD.
    sh("utils/subset_data_dir.sh", "--utt-list", "data/aug/utt2aug", "data/aug", "data/some")
    (recipe / "data/some/utt2aug").unlink()
    speeds = (recipe / "data/some/utt2spk").read_text().splitlines()
    (recipe / "list").write_text(
        "".join(f"{line}\n" for line in speeds if line.startswith("sp0.9") and "noise" not in line)
    )
    sh("utils/subset_data_dir.sh", "--utt-list", "list", "data/some", "data/fast")
    done = sh("local/compute_vad.sh", "--nj", 1, "data/fast", fails=True)
    assert (
        "WARNING: data/fast has no utt2aug, and 4 utterances are named as copies (the first: sp0.9-s0-0)" in done.stderr
    )
    assert re.search(r"'sp0.9-s0-0' has features of \d+ frames, its recording gives \d+", done.stderr)
    (recipe / "data/fast/utt2aug").touch()
    assert sh("utils/check_copies.sh", "data/fast").stderr == ""
    sh("utils/validate_data_dir.sh", "data/fast")


def test_copies_by_pipes_are_not_ours(recipe: Path, sh: Run) -> None:
    """As Kaldi's perturb_data_dir_speed.sh and augment_data_dir.py write them."""
    folder = recipe / "data/x"
    wav_scp = {
        "a-1": "a.wav",
        "a-1-noise": "wav-reverberate a.wav - |",
        "sp0.9-a-1": "sox -t wav a.wav -t wav - speed 0.9 |",
    }
    write_data_dir(folder, wav_scp, {utt: utt.split("-1")[0] for utt in wav_scp})
    write_table(folder / "utt2uniq", dict.fromkeys(wav_scp, "a-1"))
    assert sh("utils/check_copies.sh", folder).stderr == ""


@pytest.mark.parametrize(
    ("mishap", "message"),
    [
        ("no wav.scp", "have no energy column, and there is no wav.scp to compute the energy from"),
        ("no recording", r"'s0-1' has features, but its recording no such file"),
        ("another recording", r"'s0-1' has features of 312 frames, its recording gives 98"),
        ("no features", r"feats.scp is missing or empty; run local/make_fbank.sh"),
    ],
)
def test_refused(recipe: Path, data: Path, sh: Run, mishap: str, message: str) -> None:
    sh("local/make_fbank.sh", "--nj", 1, data)
    if mishap == "no wav.scp":
        (data / "wav.scp").unlink()
    elif mishap == "no recording":
        (recipe / "wav/1.wav").unlink()
    elif mishap == "another recording":
        write_wav(recipe / "wav/1.wav", noise(1.0))
    else:
        (data / "feats.scp").unlink()
    done = sh("local/compute_vad.sh", "--nj", 1, data, fails=True)
    assert re.search(message, done.stderr), done.stderr
    assert not (data / "vad.scp").exists()


def test_training_records_the_conf_file_beside_the_archives(recipe: Path, data: Path, sh: Run) -> None:
    sh("local/make_fbank.sh", "--nj", 1, data)
    lost = as_kaldi_copies(data, recipe / "data/lost")
    options = ["--num-epochs", 1, "--average", 1, "--valid-speakers", 0, "--batch-size", 2, "--num-frames", 50]
    model = recipe / "small.conf"
    model.write_text("--type=xvector\n--channels=8\n--stats-channels=12\n--embedding-dim=6\n")
    sh("local/train.py", "--model", model, *options, lost, "exp/a")
    assert load_net(recipe / "exp/a/final.pt").info["fbank"] == read_conf(recipe / "conf/fbank.conf")
