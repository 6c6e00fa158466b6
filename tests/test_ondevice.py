"""Features made in one batch on the device that trains: those of the loader, and those that are stored."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import noise
from test_hearing import FRONT_ENDS, teacher_net
from test_onthefly import ALWAYS
from test_wave_crops import batches, make, twelve
from toy import command, weights

from speakerkd.batches.dataset import View
from speakerkd.batches.ondevice import OnDevice
from speakerkd.batches.wavecrops import set_up_waves
from speakerkd.feats.batchfbank import BatchFbank
from speakerkd.feats.fbank import Fbank, FbankConf
from speakerkd.models import save_net

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_mel_bins": 80, "high_freq": 7600.0, "use_energy": True},
        {"use_energy": True, "raw_energy": False, "htk_compat": True, "energy_floor": 1.0},
        {"use_power": False, "use_log_fbank": False, "remove_dc_offset": False, "preemphasis_coefficient": 0.0},
        {"sample_frequency": 8000.0, "window_type": "hamming", "round_to_power_of_two": False, "frame_length": 20.0},
    ],
)
def test_a_batch_is_what_each_wave_is(options: dict) -> None:
    conf = FbankConf(dither=0.0, **options)
    waves = np.stack([noise(0.5, seed=seed) for seed in range(3)])
    alone = np.stack([Fbank(conf)(wave) for wave in waves])
    together = BatchFbank(conf)(torch.from_numpy(waves))
    assert together.shape == alone.shape
    torch.testing.assert_close(together, torch.from_numpy(alone), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dither", [0, 1])
@pytest.mark.parametrize("hear_clean", [False, True])
def test_batches_are_the_loaders(tmp_path: Path, dither: int, hear_clean: bool) -> None:
    """Augmented, dithered, masked; by two teachers, of whom one has features that only the loader makes."""
    folder = make(tmp_path / "d", twelve(), f"--num-mel-bins=24\n--dither={dither}\n", feats=False)
    seen = []
    for later in (False, True):
        made = batches(folder, "waves", views=[View(), View(0.5), View(clean=True)], mask=(8, 6))
        crops = made.data.crops
        crops.augment(ALWAYS)
        crops.hear_clean = hear_clean
        crops.later = OnDevice(crops.conf) if later else None
        for name in ("kaldi", "speechbrain"):
            crops.listen(name, FRONT_ENDS[name])
        seen.append(made)
    for step in range(4):
        expected, raw = (made[step] for made in seen)
        assert [each.ndim for each in raw.feats] == [2, 2, 2] and raw.heard["kaldi"].ndim == 2
        batch = seen[1].finish(raw)
        assert batch.hidden == [] and seen[0].finish(expected) is expected
        for ours, other in zip(batch.feats, expected.feats, strict=True):
            assert torch.equal(ours == 0, other == 0)  # the same is hidden
            torch.testing.assert_close(ours, other, rtol=1e-4, atol=2e-3)
        assert any((each == 0).any() for each in batch.feats[:2]) and not (batch.feats[2] == 0).any()
        torch.testing.assert_close(batch.heard["kaldi"], expected.heard["kaldi"], rtol=1e-4, atol=2e-3)
        assert torch.equal(batch.heard["speechbrain"], expected.heard["speechbrain"])


def test_they_are_the_stored_rows(tmp_path: Path) -> None:
    """Up to the rounding of the archive (CM2)."""
    folder = make(tmp_path / "d", twelve())
    stored, made = batches(folder, "feats"), batches(folder, "waves")
    made.data.crops.later = OnDevice(made.data.crops.conf)  # type: ignore[attr-defined]
    for step in range(3):
        difference = (made.finish(made[step]).feats[0] - stored[step].feats[0]).abs()
        assert difference.max() < 0.05 and difference.mean() < 0.01


def test_training(recipe: Path, data: Path, sh: Run) -> None:
    make(recipe / "data/train", twelve(), "--num-mel-bins=24\n--dither=1\n", feats=False)
    (recipe / "exp/t").mkdir(parents=True)
    save_net(recipe / "exp/t/final.pt", teacher_net(FRONT_ENDS["kaldi"]))
    words = ["--kd", "conf/kd/cosine.conf", "--teacher", "exp/t/final.pt", "--valid-speakers", 0, "--num-frames", 20,
             "--source", "waves", "--lr", 1e-3]  # fmt: skip
    sh(*command("exp/loader", *words))
    sh(*command("exp/device", *words, "--features", "device", "--workers", 2))
    one, other = (weights(recipe / f"exp/{name}/final.pt") for name in ("loader", "device"))
    for name, each in one.items():
        torch.testing.assert_close(other[name], each, rtol=0.02, atol=0.02)
    done = sh(*command("exp/no", *words, "--features", "gpu"), fails=True)
    assert "--features=gpu is not one of: loader device" in done.stderr
    with pytest.raises(ValueError, match="--features are about waves: give --source waves as well"):
        set_up_waves(batches(make(recipe / "d", twelve()), "feats").data.crops, "", False, 0, "device")
