"""Crops of waves: their features are the rows of feats.scp, and they follow from the seed alone."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import noise, write_wav

from speakerkd.audio.waveark import WaveArkWriter
from speakerkd.batches.dataset import Batches, View
from speakerkd.batches.utterances import Utterances
from speakerkd.batches.wavecrops import WaveCrops
from speakerkd.conf import build, read_conf
from speakerkd.feats.fbank import Fbank, FbankConf
from speakerkd.feats.frontend import KaldiConf, KaldiFrontEnd, SpeechBrainConf, SpeechBrainFrontEnd
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import write_data_dir, write_table

SHIFT, LENGTH = 160, 400


def make(
    folder: Path, seconds: dict[str, float], fbank_conf: str = "--num-mel-bins=24\n--dither=0\n", feats: bool = True
) -> Path:
    """A data directory with features, a wave archive, and the WAV files themselves."""
    waves = {name: noise(each, seed=number) for number, (name, each) in enumerate(sorted(seconds.items()))}
    paths = {name: str(write_wav(folder / f"wav/{name}.wav", wave)) for name, wave in waves.items()}
    write_data_dir(folder, paths, {name: name.split("-")[0] for name in seconds})
    waves = {name: soundfile.read(path, dtype="float32")[0] for name, path in paths.items()}
    (folder / "conf").mkdir(exist_ok=True)
    (folder / "conf/fbank.conf").write_text(fbank_conf)
    fbank = Fbank(build(FbankConf, read_conf(folder / "conf/fbank.conf"), "conf"))
    if feats:
        with ArkWriter(folder / "feats", compress=True) as write:
            for name, wave in waves.items():
                write(name, fbank(wave))
        write_table(folder / "utt2num_frames", {name: fbank.num_frames(len(wave)) for name, wave in waves.items()})
    with WaveArkWriter(str(folder / "waves"), 16000) as write_wave:
        for name, wave in waves.items():
            write_wave(name, wave)
    write_table(folder / "utt2num_samples", {name: len(wave) for name, wave in waves.items()})
    return folder


def twelve(least: float = 0.5) -> dict[str, float]:
    return {f"s{i % 3}-{i:02}": least + i / 17 for i in range(12)}


def batches(folder: Path, source: str, **changes: object) -> Batches:
    arguments: dict = {"views": [View()], "num_frames": 20, "batch_size": 4, "seed": 0} | changes
    return Batches(Utterances(folder, source=source), **arguments)


@pytest.mark.parametrize(
    "more", ["", "--snip-edges=false\n", "--snip-edges=false\n--frame-length=20\n--use-energy=true\n"]
)
def test_features_of_crops_are_the_rows_of_the_archive(tmp_path: Path, more: str) -> None:
    """Up to the rounding of CM2, wherever the crop lies. Without --snip-edges frames reach over the ends."""
    folder = make(tmp_path / "d", twelve(0.26), "--num-mel-bins=24\n--dither=0\n" + more)
    stored, computed = batches(folder, "feats"), batches(folder, "waves")
    assert np.array_equal(stored.data.frames, computed.data.frames) and stored.data.dim == computed.data.dim
    step = max(float(np.ptp(stored.data.scp.read(i))) for i in range(12)) / 65535
    ends: set[str] = set()
    for number in range(300):
        one, other = stored[number], computed[number]
        assert (one.feats[0] - other.feats[0]).abs().max() <= 1.1 * step
    for number in range(12):  # and the ends of each utterance
        last = int(stored.data.frames[number])
        rows, whole = stored.data.scp.read(number), computed.data.crops.rows(number)
        assert np.abs(rows - whole).max() <= 0.51 * step
        for start in (0, 1, last - 20):
            wave = computed.data.crops.wave(number, start, 20)
            made = computed.data.crops._fbank(wave)
            assert np.abs(made - rows[start : start + 20]).max() <= 0.51 * step
        ends.add(stored.data.scp.key(number))
    assert len(ends) == 12


def test_a_crop_takes_exactly_the_samples_of_its_frames(tmp_path: Path) -> None:
    folder = make(tmp_path / "d", twelve())
    crops = WaveCrops(folder)
    for entry in (0, 5, 11):
        wave = soundfile.read(folder / f"wav/{crops.scp.key(entry)}.wav", dtype="float32")[0]
        frames = int(crops.frames[entry])
        for start, length in ((0, 1), (3, 20), (frames - 20, 20), (0, frames)):
            expected = wave[start * SHIFT : (start + length - 1) * SHIFT + LENGTH]
            assert np.array_equal(crops.wave(entry, start, length), expected)


def test_archive_files_and_headers_give_the_same_crops(tmp_path: Path) -> None:
    """Without waves.scp the files of wav.scp are read; without utt2num_samples their headers."""
    folder = make(tmp_path / "d", twelve(), feats=False)
    first = [batches(folder, "waves")[step].feats[0] for step in range(6)]
    (folder / "utt2num_samples").unlink()
    assert all(torch.equal(a, batches(folder, "waves")[step].feats[0]) for step, a in enumerate(first))
    (folder / "waves.scp").unlink()
    assert all(torch.equal(a, batches(folder, "waves")[step].feats[0]) for step, a in enumerate(first))
    for name in ("utt2aug", "segments"):
        (folder / name).write_text("s0-00 speed=0.9\n")
        with pytest.raises(ValueError, match=f"{name} changes the recordings .* local/make_wave_ark.sh"):
            Utterances(folder, source="waves")
        (folder / name).unlink()
    (folder / "wav.scp").unlink()
    with pytest.raises(ValueError, match=r"neither waves.scp nor wav.scp; local/make_wave_ark.sh"):
        Utterances(folder, source="waves")
    (folder / "conf/fbank.conf").unlink()
    with pytest.raises(ValueError, match=r"conf/fbank.conf is missing"):
        Utterances(folder, source="waves")
    with pytest.raises(ValueError, match="--source=wave is not one of: feats waves"):
        Utterances(folder, source="wave")


def test_short_utterances_are_repeated(tmp_path: Path) -> None:
    """The period is the frames times the shift; frames that lie within a repetition are those of the archive."""
    folder = make(tmp_path / "d", {"a-1": 0.1, "a-2": 0.5, "b-1": 0.3, "b-2": 0.4})
    short, stored = batches(folder, "waves", num_frames=30), batches(folder, "feats", num_frames=30)
    assert short.short == 2
    crops = short.data.crops
    frames = int(crops.frames[0])
    wave = crops.wave(0, 0, 30)
    assert len(wave) == 29 * SHIFT + LENGTH
    original = soundfile.read(folder / "wav/a-1.wav", dtype="float32")[0]
    assert np.array_equal(wave[: frames * SHIFT], original[: frames * SHIFT])
    assert np.array_equal(wave[frames * SHIFT : 2 * frames * SHIFT], original[: frames * SHIFT])
    rows = crops._fbank(wave)
    exact = stored.data.scp.read(0)
    inside = [t for t in range(30) if t % frames < frames - 2]
    assert len(inside) > 15
    assert np.abs(rows[inside] - exact[[t % frames for t in inside]]).max() < 1e-3
    assert torch.isfinite(short[0].feats[0]).all()


def test_other_front_ends_hear_the_same_samples(tmp_path: Path) -> None:
    folder = make(tmp_path / "d", twelve())
    heard = batches(folder, "waves", views=[View(), View(0.5)])
    ears = {
        "big": KaldiFrontEnd(KaldiConf(num_mel_bins=40, dither=0.0, waveform_scale=1.0)),
        "other": SpeechBrainFrontEnd(SpeechBrainConf(num_mel_bins=30)),
    }
    for name, each in ears.items():
        heard.data.crops.listen(name, each)
    places = []
    crops = heard.data.crops
    plain, crops.cut = crops.cut, lambda place: places.append(place) or plain(place)  # type: ignore[method-assign]
    batch = heard[3]
    first = places[0]
    assert [each.heard for each in places] == [True, False] and set(batch.heard) == set(ears)
    for number in range(4):
        wave = crops.wave(int(first.entries[number]), int(first.starts[number]), 20)
        for name, each in ears.items():
            assert np.array_equal(batch.heard[name][number].numpy(), each(wave))
    assert batch.heard["big"].shape == (4, 20, 40) and batch.heard["other"].shape[2] == 30
    with pytest.raises(ValueError, match=r"deep hears 8000 Hz, and the waves of .* have 16000 Hz"):
        crops.listen("deep", KaldiFrontEnd(KaldiConf(sample_frequency=8000, high_freq=0)))
    with pytest.raises(ValueError, match=r"big must hear the recording.*--source waves \(local/make_wave_ark.sh"):
        Utterances(folder).crops.listen("big", ears["big"])


def test_crops_follow_from_seed_epoch_and_utterance_alone(tmp_path: Path) -> None:
    """Dither is drawn anew for each crop; workers and processes change nothing."""
    folder = make(tmp_path / "d", twelve(), "--num-mel-bins=24\n--dither=1\n", feats=False)

    def crops(**changes: object) -> list[torch.Tensor]:
        seen = batches(folder, "waves", **changes)
        return [seen[step].feats[0] for step in range(6)]

    whole = crops()
    assert all(map(torch.equal, whole, crops())) and not torch.equal(whole[0], crops(seed=1)[0])
    shares = [crops(rank=rank, world_size=2) for rank in range(2)]
    assert all(torch.equal(each, torch.cat(parts)) for each, *parts in zip(whole, *shares, strict=True))
    kind = torch.utils.data.DataLoader(
        batches(folder, "waves"), batch_size=None, sampler=range(6), num_workers=2, multiprocessing_context="fork"
    )
    assert all(torch.equal(each, batch.feats[0]) for each, batch in zip(whole, kind, strict=True))


def test_waves_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "d", twelve(), feats=False)
    (folder / "conf/fbank.conf").write_text("--num-mel-bins=24\n--sample-frequency=8000\n")
    with pytest.raises(
        ValueError, match=r"waves.scp:\d+: 's.*has 16000 Hz, the features are made at 8000 Hz; local/make_wave_ark"
    ):
        batches(folder, "waves")[0]
    (folder / "conf/fbank.conf").write_text("--num-mel-bins=24\n")
    count = (folder / "waves.ark").stat().st_size
    with open(folder / "waves.ark", "r+b") as file:
        file.truncate(count - 5000)
    with pytest.raises(ValueError, match=r"waves.scp:12: 's2-11': is truncated"):
        Utterances(folder, source="waves").crops.rows(11)
    write_table(folder / "utt2num_samples", dict.fromkeys(twelve(), 300))
    with pytest.raises(ValueError, match=r"waves.scp: 12 utterance\(s\) are shorter than a frame, such as s0-00"):
        Utterances(folder, source="waves")
