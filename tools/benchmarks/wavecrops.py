"""Crops of waves with features, beside the steps of other toolkits: read the file, cut it, torchaudio's fbank."""

import time
from pathlib import Path

import numpy as np

from tools.benchmarks.common import Options, Row, compare

CROPS, FRAMES, RATE = 64, 200, 16000


def write_wav(path: Path, wave: np.ndarray) -> None:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE, subtype="PCM_16")


def archive(folder: Path, utterances: int) -> list[str]:
    """Ten seconds of noise each: WAV files, and a wave archive of the same. Returns the names."""
    import soundfile

    from speakerkd.audio.waveark import WaveArkWriter
    from speakerkd.files.tables import write_data_dir, write_table

    rng = np.random.default_rng(0)
    names = [f"{index:04}" for index in range(utterances)]
    write_data_dir(folder, {name: str(folder / f"{name}.wav") for name in names}, {name: name for name in names})
    with WaveArkWriter(str(folder / "waves"), RATE) as write:
        for name in names:
            path = folder / f"{name}.wav"
            soundfile.write(path, 0.1 * rng.standard_normal(10 * RATE), RATE, subtype="PCM_16")
            write(name, soundfile.read(path, dtype="float32")[0])
    write_table(folder / "utt2num_samples", dict.fromkeys(names, 10 * RATE))
    (folder / "conf").mkdir()
    (folder / "conf/fbank.conf").write_text("--num-mel-bins=80\n--dither=0\n")
    return names


def crops(options: Options, folder: Path) -> list[Row]:
    import soundfile
    import torch
    import torchaudio

    from speakerkd.audio.onthefly import AugmentConf
    from speakerkd.audio.rooms import pink, shoebox
    from speakerkd.batches.crops import Places
    from speakerkd.batches.wavecrops import WaveCrops

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    names = archive(folder, options.utterances)
    paths = [folder / f"{name}.wav" for name in names]
    plain, changed = WaveCrops(folder), WaveCrops(folder)
    for number in range(16):
        write_wav(folder / f"musan/noise/{number}.wav", 0.1 * pink(rng, 10 * RATE, RATE))
        write_wav(folder / f"rirs/simulated_rirs/smallroom/{number}.wav", 0.9 * shoebox(number, 0.45, RATE))
    musan, rirs = str(folder / "musan"), str(folder / "rirs")
    changed.augment(
        AugmentConf(probability=1.0, kinds=("reverb", "noise"), musan=musan, rirs=rirs, rooms=("smallroom",))
    )
    entries, starts = rng.integers(0, len(names), CROPS), rng.integers(0, 790, CROPS)
    rooms = [torch.from_numpy(shoebox(seed, 0.45, RATE)) for seed in range(8)]
    drawn = 0

    def ours(source: WaveCrops) -> None:
        nonlocal drawn
        drawn += 1  # other noise and rooms each time
        seeds = np.arange(CROPS, dtype=np.uint64) * np.uint64(2) + np.uint64(1000 * drawn)
        source.cut(Places(entries, starts, FRAMES, seeds))

    def theirs(noisy: bool) -> None:
        for number, (entry, start) in enumerate(zip(entries.tolist(), starts.tolist(), strict=True)):
            wave = torch.from_numpy(soundfile.read(paths[entry], dtype="float32")[0])
            crop = wave[start * 160 : (start + FRAMES - 1) * 160 + 400]
            if noisy and number % 2:
                crop = torchaudio.functional.fftconvolve(crop, rooms[number % 8])[: len(crop)]
            elif noisy:
                sound = soundfile.read(folder / f"musan/noise/{number % 16}.wav", dtype="float32")[0]
                crop = crop + torch.from_numpy(sound)[: len(crop)]
            made = torchaudio.compliance.kaldi.fbank(crop[None] * 32768, num_mel_bins=80, dither=0.0)
            made - made.mean(0)

    rows = []
    for what, source, noisy, aim in (
        ("fbank of 2 s crops from a wave archive, one core", plain, False, "1000 crops/s, 2"),
        ("each in a new random room or with new random noise", changed, True, "300 crops/s, 2"),
    ):
        mine, other, ratio = compare(lambda s=source: ours(s), lambda n=noisy: theirs(n), options.seconds)  # type: ignore[misc]
        began = time.process_time()
        for _ in range(5):
            ours(source)
        of_processor = 5 * CROPS / (time.process_time() - began)  # other work on the machine changes this less
        beside = f"whole file, cut, torchaudio {CROPS / other:.0f} crops/s"
        figure = f"{CROPS / mine:.0f} crops/s, {of_processor:.0f} by processor time"
        rows.append(Row("crops", what, figure, beside, f"{ratio:.1f}", aim))
    return rows
