"""Teachers that hear the crop: the student's features, or what their own front end makes of the same samples."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from test_wave_crops import LENGTH, SHIFT, make, twelve
from toy import command

from speakerkd.batches.dataset import Batches, View
from speakerkd.batches.utterances import Utterances
from speakerkd.feats.frontend import (
    FrontEnd,
    KaldiConf,
    KaldiFrontEnd,
    ResemblyzerConf,
    ResemblyzerFrontEnd,
    SpeechBrainConf,
    SpeechBrainFrontEnd,
    front_end_info,
)  # fmt: skip
from speakerkd.kd.find_teacher import find_teacher
from speakerkd.kd.teacher import NetTeacher
from speakerkd.losses.margin import MarginConf
from speakerkd.models import SpeakerNet, make_net, save_net
from speakerkd.models.extract import embed

Run = Callable[..., subprocess.CompletedProcess[str]]
TOY = Path(__file__).parent / "data/xvector_toy.conf"
FRONT_ENDS: dict[str, FrontEnd] = {
    "kaldi": KaldiFrontEnd(KaldiConf(num_mel_bins=30, dither=0.0, waveform_scale=1.0)),
    "raw": KaldiFrontEnd(KaldiConf(num_mel_bins=30, dither=0.0, mean="none")),
    "speechbrain": SpeechBrainFrontEnd(SpeechBrainConf(num_mel_bins=30)),
    "windows": ResemblyzerFrontEnd(ResemblyzerConf(num_mel_bins=30, window_frames=12, window_shift=5)),
}


def teacher_net(front_end: FrontEnd, speakers: tuple[str, ...] = ()) -> SpeakerNet:
    torch.manual_seed(3)
    net = make_net(TOY, front_end.dim, speakers, MarginConf() if speakers else None).eval()
    net.info = {"front_end": front_end_info(front_end)}
    return net


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_the_teacher_hears_the_very_samples_of_the_crop(tmp_path: Path, name: str) -> None:
    front_end = FRONT_ENDS[name]
    data = Utterances(make(tmp_path / "d", twelve()), source="waves")
    net = teacher_net(front_end, data.speakers)
    save_net(tmp_path / "t.pt", net)
    teacher = find_teacher(str(tmp_path / "t.pt"), "", data, np.arange(len(data)), MarginConf())
    assert isinstance(teacher, NetTeacher) and teacher.reading is not None
    seen = Batches(data, [View()], 20, 4, 0)
    places = []
    plain = data.crops.cut
    data.crops.cut = lambda place: places.append(place) or plain(place)  # type: ignore[method-assign]
    for step in range(3):
        batch = seen[step]
        vectors = teacher.embed(batch).embedding
        for number, (entry, start) in enumerate(zip(places[-1].entries, places[-1].starts, strict=True)):
            wave = soundfile.read(data.folder / f"wav/{data.scp.key(int(entry))}.wav", dtype="float32")[0]
            samples = wave[start * SHIFT : (start + 19) * SHIFT + LENGTH]
            alone = embed(net, front_end(samples), torch.device("cpu"), 0, front_end.conf)
            np.testing.assert_allclose(vectors[number].numpy(), alone, rtol=1e-4, atol=1e-5)
    assert (teacher.logits(vectors, batch.labels).argmax(1) >= 0).all()


def test_a_teacher_with_the_students_features_hears_them(tmp_path: Path) -> None:
    data = Utterances(make(tmp_path / "d", twelve()), source="waves")
    net = make_net(TOY, 24, data.speakers, MarginConf()).eval()
    net.info = {"fbank": {"num_mel_bins": "24", "dither": "0"}, "cmn": "utterance"}
    save_net(tmp_path / "t.pt", net)
    teacher = find_teacher(str(tmp_path / "t.pt"), "", data, np.arange(len(data)), MarginConf())
    batch = Batches(data, [View()], 20, 4, 0)[0]
    assert not batch.heard
    torch.testing.assert_close(teacher.embed(batch).embedding, net(batch.feats[0]).embedding)


def test_training_by_a_teacher_with_another_front_end(recipe: Path, data: Path, sh: Run) -> None:
    """With --source waves it hears the crop; with features alone it is refused, with the remedies."""
    make(recipe / "data/train", twelve())
    (recipe / "exp/t").mkdir(parents=True)
    save_net(recipe / "exp/t/final.pt", teacher_net(FRONT_ENDS["kaldi"]))
    words = ["--kd", "conf/kd/kld.conf", "--teacher", "exp/t/final.pt", "--valid-speakers", 0, "--num-frames", 20]
    done = sh(*command("exp/a", *words), fails=True)
    for part in ("features of another kind than those of data/train", "--num-mel-bins=24 for 30", "--source waves",
                 "local/make_wave_ark.sh data/train", "local/extract_xvectors.sh"):  # fmt: skip
        assert part in done.stderr
    words += ["--source", "waves"]
    done = sh(*command("exp/a", *words), fails=True)
    assert "has no classifier, and label-level distillation needs one. Give --centroids" in done.stderr
    sh("local/extract_xvectors.sh", "exp/t/final.pt", "data/train", "exp/t/xvectors")
    words += ["--centroids", "exp/t/xvectors/spk_xvector.scp"]
    told = sh(
        "local/check_teacher.sh", "--kd", "conf/kd/cosine.conf", "exp/t/final.pt", "data/train", fails=True
    ).stdout
    assert "--source waves" in told
    (recipe / "data/train/feats.scp").unlink()
    sh(*command("exp/a", *words))
    sh("local/train.sh", "--source", "waves", "--kd", "conf/kd/kld.conf", "--teacher", "exp/t/final.pt", "--train-options",
       " ".join(map(str, [*words[4:], "--num-epochs", 1, "--average", 1])), "data/train", "exp/b")  # fmt: skip
    header = (recipe / "exp/a/log.tsv").read_text().split("\n")[0].split("\t")
    assert "kd" in header and "teacher_p" in header
    told = sh(
        "local/check_teacher.sh", "--source", "waves", "--kd", "conf/kd/cosine.conf", "exp/t/final.pt", "data/train"
    ).stdout
    assert "hears      the same samples by its own front end" in told and "can serve" in told
