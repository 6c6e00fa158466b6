"""Augmentation on the fly: drawn from the crop's seed, at the SNRs asked for; teachers hear the crop as they are told to."""

import hashlib
import signal
import subprocess
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import environment, noise, write_wav
from test_hearing import FRONT_ENDS, teacher_net
from test_wave_crops import LENGTH, SHIFT, make, twelve
from toy import command, same, weights

from speakerkd.audio.augment import Augmenter, parse
from speakerkd.audio.onthefly import AugmentConf, OnTheFly, check_not_twice
from speakerkd.batches.crops import Places
from speakerkd.batches.dataset import Batches, View
from speakerkd.batches.utterances import Utterances
from speakerkd.batches.wavecrops import WaveCrops
from speakerkd.files import blocks, numbering, stored
from speakerkd.files.tables import write_table
from speakerkd.kd.find_teacher import find_teacher
from speakerkd.losses.margin import MarginConf
from speakerkd.models import make_net, save_net

Run = Callable[..., subprocess.CompletedProcess[str]]
ALWAYS = AugmentConf(probability=1.0)


def test_draws_follow_the_seed_and_the_options(tmp_path: Path) -> None:
    folder = make(tmp_path / "d", twelve(), feats=False)
    drawn = OnTheFly(AugmentConf(probability=0.6), folder, 16000)
    texts = [drawn.draw(2.0, seed, "s0") for seed in range(2000)]
    assert texts == [drawn.draw(2.0, seed, "s0") for seed in range(2000)]
    assert abs(np.mean([bool(text) for text in texts]) - 0.6) < 0.04
    words = [text.split("=")[0] for text in texts if text]
    assert abs(words.count("reverb") / len(words) - 0.25) < 0.05
    snrs = {each.snr for text in texts if "pink" in text for each in parse(text) if hasattr(each, "snr")}
    assert snrs == {15, 10, 5, 0}
    babble = [text for text in texts if "s1-" in text or "s2-" in text]
    assert babble and not any("noise=s0-" in text for text in texts), "nobody babbles behind themselves"
    line = OnTheFly(AugmentConf(probability=1.0, kinds=("telephone",)), folder, 16000)
    heard = np.abs(np.fft.rfft(line(noise(2.0), 1, "s0")))
    assert line.draw(2.0, 1, "s0") == "telephone" and heard[9000:].mean() < 0.1 * heard[1000:6000].mean()
    both = OnTheFly(AugmentConf(probability=1.0, kinds=("reverb+noise",)), folder, 16000)
    assert all(both.draw(2.0, seed, "s0").split()[0].startswith("reverb=room#") for seed in range(9))


def test_folders_of_noise_and_rooms_are_drawn_from(tmp_path: Path) -> None:
    folder = make(tmp_path / "d", twelve(), feats=False)
    for part in ("noise", "music", "speech"):
        for number in range(3):
            write_wav(tmp_path / f"musan/{part}/{part}-{number}.wav", noise(5.0, seed=number))
    for number in range(2):
        write_wav(tmp_path / f"rirs/simulated_rirs/smallroom/R/r{number}.wav", np.eye(1, 300, 5)[0])
    conf = AugmentConf(
        probability=1.0, musan=str(tmp_path / "musan"), rirs=str(tmp_path / "rirs"), rooms=("smallroom",)
    )
    drawn = OnTheFly(conf, folder, 16000)
    wave = noise(2.0, seed=9)
    texts = [drawn.draw(2.0, seed, "s0") for seed in range(60)]
    assert {"musan-noise", "musan-music", "musan-speech", "rirs-smallroom"} == {
        "-".join(text.split("=")[1].split("-")[:2]) for text in texts
    }
    augmenter = Augmenter(drawn._sources.files, 16000)
    for seed, text in enumerate(texts):
        assert np.array_equal(drawn(wave, seed, "s0"), augmenter(wave, text))


def tables(folder: Path, speakers: bool, lengths: str, count: int = 40) -> Path:
    """The tables alone, of recordings at two speeds."""
    folder.mkdir()
    names = sorted(f"{speed}s{number % 5}-{number:03}" for number in range(count) for speed in ("", "sp0.9-"))
    write_table(folder / "waves.scp", {name: f"/a/wave.{i % 3}.ark:{17 * i}" for i, name in enumerate(names)})
    if speakers:
        write_table(folder / "utt2spk", {name: name.rpartition("-")[0] for name in names})
    if lengths == "samples":
        write_table(folder / "utt2num_samples", {name: 16000 + 997 * i for i, name in enumerate(names)})
    else:
        write_table(folder / "utt2dur", {name: f"{1 + 0.061 * i:.3f}" for i, name in enumerate(names)})
    return folder


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    ("speakers", "lengths", "digest"),
    [
        (True, "samples", "59f22e598a21dc63"),
        (True, "seconds", "61861b6503933b35"),
        (False, "samples", "e89f28ac3545fe1f"),
        (False, "seconds", "c6f95019c18ad298"),
    ],
)
def test_babble_is_that_of_before_the_tables_were_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool, speakers: bool, lengths: str, digest: str
) -> None:
    """The digests are of the code that read the tables as dictionaries."""
    if kept:
        monkeypatch.setattr(stored, "SMALL", 0)
    folder = tables(tmp_path / "d", speakers, lengths)
    conf = AugmentConf(probability=1.0, kinds=("babble", "noise+babble"))
    for _ in range(2):
        drawn = OnTheFly(conf, folder, 16000)
        texts = [drawn.draw(2.0, seed, f"s{seed % 6}") for seed in range(300)]
        assert hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] == digest
    assert drawn.said.endswith(f"babble: {5 if speakers else 40} speakers of {folder}, for there is no --musan")
    files = drawn._sources.files
    assert files["sp0.9-s0-000"] == "/a/wave.1.ark:680" and "s9" not in files and len(list(files)) == 80
    assert [each.name for each in drawn._sources.speech["s0" if speakers else "s0-005"]][-1] == (
        "sp0.9-s0-035" if speakers else "sp0.9-s0-005"
    )


def test_babble_takes_few_bytes_per_utterance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "SMALL", 0)
    monkeypatch.setattr(blocks, "BLOCK", 1 << 14)
    monkeypatch.setattr(numbering, "PART", 1 << 12)
    folder, count = tables(tmp_path / "d", True, "samples", 10_000), 20_000
    used = []
    for _ in range(2):
        tracemalloc.start()
        OnTheFly(AugmentConf(kinds=("babble",)), folder, 16000)
        used.append(tracemalloc.get_traced_memory()[1] / count)
        tracemalloc.stop()
    assert used[0] < 60 and used[1] < 5, "bytes; as dictionaries they took 600"


def test_babble_needs_lengths_two_talkers_and_ids_of_its_own(tmp_path: Path) -> None:
    conf = AugmentConf(kinds=("babble",))
    folder = tables(tmp_path / "d", True, "samples", 1)
    with pytest.raises(ValueError, match="babble needs two speakers or more"):
        OnTheFly(conf, folder, 16000)
    folder = tables(tmp_path / "e", True, "samples")
    write_wav(tmp_path / "rirs/simulated_rirs/smallroom/R/r.wav", np.eye(1, 300, 5)[0])
    rirs = AugmentConf(kinds=("babble", "reverb"), rirs=str(tmp_path / "rirs"), rooms=("smallroom",))
    taken = next(iter(OnTheFly(rirs, folder, 16000)._sources.files.maps[0]))  # type: ignore[attr-defined]
    for name in ("waves.scp", "utt2spk", "utt2num_samples"):
        with open(folder / name) as file:
            lines = [f"{taken} {line.split()[1]}\n" if number == 0 else line for number, line in enumerate(file)]
        (folder / name).write_text("".join(sorted(lines)))
    with pytest.raises(ValueError, match=f"its id {taken} is taken by an utterance"):
        OnTheFly(rirs, folder, 16000)
    (folder / "utt2num_samples").unlink()
    with pytest.raises(ValueError, match="neither utt2num_samples nor utt2dur"):
        OnTheFly(conf, folder, 16000)


def batches(folder: Path, conf: AugmentConf = ALWAYS, **changes: object) -> Batches:
    data = Utterances(folder, source="waves")
    assert isinstance(data.crops, WaveCrops)
    data.crops.augment(conf)
    return Batches(data, **({"views": [View()], "num_frames": 20, "batch_size": 4, "seed": 0} | changes))  # type: ignore[arg-type]


def test_each_epoch_draws_anew_and_workers_and_processes_change_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "d", twelve(), feats=False)
    plain = Batches(Utterances(folder, source="waves"), [View()], 20, 4, 0)

    def crops(**changes: object) -> list[torch.Tensor]:
        seen = batches(folder, **changes)
        return [seen[step].feats[0] for step in range(6)]

    whole = crops()
    assert all(map(torch.equal, whole, crops()))
    assert not any(torch.equal(each, plain[step].feats[0]) for step, each in enumerate(whole))
    shares = [crops(rank=rank, world_size=2) for rank in range(2)]
    assert all(torch.equal(each, torch.cat(parts)) for each, *parts in zip(whole, *shares, strict=True))
    kind = torch.utils.data.DataLoader(
        batches(folder), batch_size=None, sampler=range(6), num_workers=2, multiprocessing_context="fork"
    )
    assert all(torch.equal(each, batch.feats[0]) for each, batch in zip(whole, kind, strict=True))
    views = batches(folder, views=[View(clean=True), View()])
    clean, noisy = views[2].feats
    expected = Batches(Utterances(folder, source="waves"), [View(clean=True), View()], 20, 4, 0)[2].feats
    assert torch.equal(clean, expected[0]) and not torch.equal(noisy, expected[1])


@pytest.mark.parametrize("hear_clean", [False, True])
@pytest.mark.parametrize("hear_frames", [0, 31, 500])
@pytest.mark.parametrize("front_end", ["kaldi", "same"])
def test_what_the_teacher_hears(tmp_path: Path, hear_clean: bool, hear_frames: int, front_end: str) -> None:
    """The crop as the student hears it, or without the noise, or more of the utterance round it."""
    folder = make(tmp_path / "d", twelve(), feats=False)
    seen = batches(folder)
    crops = seen.data.crops
    assert isinstance(crops, WaveCrops) and crops._augment is not None
    crops.hear_clean, crops.hear_frames = hear_clean, hear_frames
    net = (
        teacher_net(FRONT_ENDS["kaldi"])
        if front_end == "kaldi"
        else make_net(Path(__file__).parent / "data/xvector_toy.conf", 24)
    )
    if front_end == "same":
        net.info = {"fbank": {"num_mel_bins": "24", "dither": "0"}, "cmn": "utterance"}
    save_net(tmp_path / "t.pt", net)
    teacher = find_teacher(str(tmp_path / "t.pt"), "", seen.data, np.arange(12), MarginConf())
    if front_end == "same" and not hear_clean and not hear_frames:
        assert teacher.reading is None  # type: ignore[attr-defined]
        return
    places: list[Places] = []
    plain = crops.cut
    crops.cut = lambda place: places.append(place) or plain(place)  # type: ignore[method-assign]
    batch = seen[1]
    heard = batch.heard[str(tmp_path / "t.pt")]
    length = max(20, hear_frames)
    ear = FRONT_ENDS["kaldi"] if front_end == "kaldi" else crops._front_ends[str(tmp_path / "t.pt")]
    assert heard.shape[:2] == (4, length)
    for number, (entry, start) in enumerate(zip(places[0].entries.tolist(), places[0].starts.tolist(), strict=True)):
        first = min(max(start - (length - 20) // 2, 0), max(int(crops.frames[entry]) - length, 0))
        clean = crops.wave(entry, first, length)
        seed = int(places[0].seeds[number] >> np.uint64(1))
        noisy = crops._augment(clean, seed, f"s{entry % 3}")
        noisy = crops._augment(clean, seed, crops.talker(entry))
        assert np.array_equal(heard[number].numpy(), ear(clean if hear_clean else noisy))
        at = (start - first) * SHIFT
        rows = crops._fbank(noisy[at : at + 19 * SHIFT + LENGTH])
        assert np.array_equal(batch.feats[0][number].numpy(), rows - rows.mean(0))


def test_bad_augmentations_are_named(recipe: Path, data: Path, sh: Run) -> None:
    folder = make(recipe / "data/train", twelve())
    words = ["--valid-speakers", 0, "--num-frames", 20]
    (recipe / "conf/augment.conf").write_text("--probability=1\n")
    done = sh(*command("exp/a", *words, "--augment", "conf/augment.conf"), fails=True)
    assert "give --source waves as well (local/make_wave_ark.sh data/train)" in done.stderr
    crops = WaveCrops(folder)
    for text, message in (
        ("s0-00 speed=0.9 noise=pink#1:snr=5\n", r"utt2aug: noise, rooms .* in 1 copies already .* so it wins"),
        ("s0-00 reverb=room#1:rt60=0.3\n", "a second time"),
    ):
        (folder / "utt2aug").write_text(text)
        with pytest.raises(ValueError, match=message):
            crops.augment(ALWAYS)
    done = sh(*command("exp/a", *words, "--source", "waves", "--augment", "conf/augment.conf"), fails=True)
    for part in ("conf/augment.conf: data/train/utt2aug: noise, rooms", "so it wins: leave --augment out"):
        assert part in done.stderr
    (folder / "utt2aug").write_text("s0-00 speed=0.9\n")
    crops.augment(ALWAYS)
    for changes, message in (
        ({"probability": 1.5}, "--probability=1.5 is not between 0 and 1"),
        ({"kinds": ("hum",)}, "'hum' is not one of: reverb noise music babble telephone"),
        ({"kinds": ()}, "nothing to draw from"),
        ({"noise_snrs": ()}, "--noise-snrs: nothing to draw from"),
    ):
        with pytest.raises(ValueError, match=message):
            AugmentConf(**changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"there is no .wav or .flac file in this folder"):
        crops.augment(AugmentConf(musan=str(folder), kinds=("noise",)))


def test_killed_and_resumed_is_bit_for_bit_the_same(recipe: Path, data: Path, sh: Run) -> None:
    make(recipe / "data/train", twelve(), "--num-mel-bins=24\n--dither=1\n", feats=False)
    (recipe / "conf/augment.conf").write_text("--probability=0.8\n")
    (recipe / "exp/t").mkdir(parents=True)
    save_net(recipe / "exp/t/final.pt", teacher_net(FRONT_ENDS["kaldi"]))
    words = ["--kd", "conf/kd/cosine.conf", "--teacher", "exp/t/final.pt", "--valid-speakers", 0, "--num-frames", 20,
             "--source", "waves", "--augment", "conf/augment.conf", "--num-epochs", 40]  # fmt: skip
    sh(*command("exp/whole", *words))
    process = subprocess.Popen(command("exp/killed", *words), cwd=recipe, env=environment(), stderr=subprocess.DEVNULL)
    while not (recipe / "exp/killed/last.pt").exists() and process.poll() is None:
        time.sleep(0.005)
    assert process.poll() is None, "it must be killed while it trains"
    process.send_signal(signal.SIGKILL)
    process.wait()
    sh(*command("exp/killed", *words, "--workers", 2))
    assert same(weights(recipe / "exp/whole/final.pt"), weights(recipe / "exp/killed/final.pt"))
    (recipe / "conf/augment.conf").write_text("--probability=0.7\n")
    assert "augmentation.probability" in sh(*command("exp/killed", *words), fails=True).stderr


TINY_RUN = """
import sys
from pathlib import Path
import numpy as np
import torch
from speakerkd.batches.dataset import Batches, View
from speakerkd.batches.utterances import Utterances
from speakerkd.batches.wavecrops import set_up_waves
from speakerkd.kd.base import Distiller, Outcome
from speakerkd.kd.find_teacher import find_teacher
from speakerkd.parallel import start
from speakerkd.train.loop import train
from speakerkd.train.options import LoopSettings, TrainConf
from speakerkd.train.runfolder import RunFolder

class Linear(Distiller):
    # No batch norm: its statistics would be those of each half of the batch.
    def __init__(self, teacher):
        super().__init__(None, None)
        self.student, self.hidden = torch.nn.Linear(24, 3), (teacher,)
        self.match = torch.nn.Linear(3, teacher.dim)

    def forward(self, batch, clock):
        said = self.student(batch.feats[0].mean(1) + batch.feats[0].var(1))
        away = self.match(said) - self.hidden[0].embed(batch).embedding
        losses = {"ce": torch.nn.functional.cross_entropy(said, batch.labels), "kd": away.square().mean()}
        return Outcome(losses)

torch.set_num_threads(1)
torch.manual_seed(0)
world = start("cpu")
data = Utterances("data/train", source="waves")
set_up_waves(data.crops, "conf/augment.conf", False, 0)
method = Linear(find_teacher("exp/t/final.pt", "", data, np.arange(len(data)), None))
folder = RunFolder(Path(sys.argv[1]))
if world.first:
    folder.open({})
world.barrier()
batches = Batches(data, [View()], 20, 4, 0, rank=world.rank, world_size=world.size)
train(method, batches, TrainConf(num_epochs=3, batch_size=4, average=2, warmup=0), folder, world, LoopSettings(1))
if world.first:
    folder.save("final.pt", method.state_dict())
world.close()
"""


def test_two_processes_do_what_one_does(recipe: Path, data: Path, sh: Run) -> None:
    """Crops of waves with noise drawn anew, heard by a teacher with a front end of its own: each process takes its half."""
    make(recipe / "data/train", twelve(), "--num-mel-bins=24\n--dither=1\n", feats=False)
    (recipe / "conf/augment.conf").write_text("--probability=0.8\n")
    (recipe / "exp/t").mkdir(parents=True)
    save_net(recipe / "exp/t/final.pt", teacher_net(FRONT_ENDS["kaldi"]))
    (recipe / "small.py").write_text(TINY_RUN)
    sh("python3", "small.py", "exp/one")
    sh("local/launch.sh", 1, 1, 2, "exp/two", "small.py", "exp/two")
    one, two = (torch.load(recipe / out / "final.pt", weights_only=True) for out in ("exp/one", "exp/two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    tables = [np.genfromtxt(recipe / out / "log.tsv", names=True) for out in ("exp/one", "exp/two")]
    for name in ("ce", "kd"):
        assert len(tables[0]) == 9 and tables[0][name].min() > 0
        np.testing.assert_allclose(tables[0][name], tables[1][name], rtol=1e-4)


def test_a_long_utt2aug_is_looked_through_without_being_held(tmp_path: Path) -> None:
    lines = [f"s{index:06} speed=0.9\n" for index in range(20_000)]
    (tmp_path / "utt2aug").write_text("".join(lines))
    tracemalloc.start()
    check_not_twice(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000, "a dict of these lines takes ten times as much"
    (tmp_path / "utt2aug").write_text("".join([*lines, "t0 noise=pink#1:snr=5\n", "t1 reverb=room#1:rt60=0.3\n"]))
    with pytest.raises(ValueError, match=r"in 2 copies already \(t0: noise=pink#1:snr=5\)"):
        check_not_twice(tmp_path)
