"""What the original networks say: run by test_import.py in a process of its own, with the packages that it unpacked.

Usage: originals.py <folder of unpacked packages> <input.npz> <out-folder> <case> [...]
A package is entered without running its __init__, so that a network needs none of what its toolkit needs besides.
"""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import nn


def enter(folder: Path, *names: str, without: tuple[str, ...] = ()) -> None:
    for name in names:
        module = types.ModuleType(name)
        module.__path__ = [str(folder / name.replace(".", "/"))]
        sys.modules[name] = module
    for name in without:
        sys.modules[name] = MagicMock()


def modelscope(folder: Path) -> None:
    """3D-Speaker's networks, of which ResNet, x-vector and the pooling are WeSpeaker's."""
    base = "modelscope.models.audio.sv"
    enter(
        folder, "modelscope", "modelscope.models", "modelscope.models.audio", base,
        without=("modelscope.metainfo", "modelscope.utils", "modelscope.utils.constant", "modelscope.utils.device"),
    )  # fmt: skip
    register = types.SimpleNamespace(register_module=lambda *_, **__: lambda kind: kind)
    sys.modules["modelscope.models"].__dict__.update(MODELS=register, TorchModel=nn.Module)


def speechbrain(folder: Path, given: Any) -> dict[str, np.ndarray]:
    packages = ("lobes", "lobes.models", "processing", "nnet", "dataio", "utils")
    enter(folder, "speechbrain", *(f"speechbrain.{name}" for name in packages), without=("yaml", "hyperpyyaml"))
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.processing.features import InputNormalization

    net = ECAPA_TDNN(80, channels=[1024] * 4 + [3072], kernel_sizes=[5, 3, 3, 3, 1], dilations=[1, 2, 3, 4, 1])
    net.load_state_dict(weights(next(folder.glob("**/embedding_model.ckpt"))))
    feats = Fbank(n_mels=80)(torch.from_numpy(given["wave"])[None])
    normalised = InputNormalization(norm_type="sentence", std_norm=False)(feats, torch.ones(1))
    return {"feats": feats[0].numpy(), "vector": net.eval()(normalised)[0, 0].numpy()}


def campplus(folder: Path, given: Any) -> dict[str, np.ndarray]:
    modelscope(folder)
    import torchaudio.compliance.kaldi
    from modelscope.models.audio.sv.DTDNN import CAMPPlus

    net = CAMPPlus(80, 192)
    net.load_state_dict(weights(next(folder.glob("**/campplus_cn_en_common.pt"))))
    wave = torch.from_numpy(given["wave"])[None]
    feats = torchaudio.compliance.kaldi.fbank(wave, num_mel_bins=80, sample_frequency=16000, dither=0)
    return {"feats": feats.numpy(), "vector": net.eval()((feats - feats.mean(0))[None])[0].numpy()}


def resemblyzer(folder: Path, given: Any) -> dict[str, np.ndarray]:
    """Without its removal of pauses; librosa's spectrogram is torchaudio's."""
    import torchaudio

    def spectrogram(y: np.ndarray, sr: int, n_fft: int, hop_length: int, n_mels: int) -> np.ndarray:
        make = torchaudio.transforms.MelSpectrogram(
            sr, n_fft, hop_length=hop_length, n_mels=n_mels, norm="slaney", mel_scale="slaney", pad_mode="constant"
        )
        return make(torch.from_numpy(y)).numpy()

    enter(folder, "resemblyzer", without=("librosa", "webrtcvad", "scipy.ndimage", "scipy.ndimage.morphology"))
    sys.modules["librosa"].feature.melspectrogram = spectrogram
    from resemblyzer.audio import audio_norm_target_dBFS, normalize_volume
    from resemblyzer.voice_encoder import VoiceEncoder

    wave = normalize_volume(given["wave"], audio_norm_target_dBFS, increase_only=True)
    encoder = VoiceEncoder("cpu", verbose=False, weights_fpath=next(folder.glob("**/pretrained.pt")))
    return {"vector": encoder.embed_utterance(wave)}


def made_up(make: Callable[[], tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]]]) -> Callable[..., Any]:
    """A network with random weights, which are part of the answer, on features."""

    def case(folder: Path, given: Any) -> dict[str, np.ndarray]:
        modelscope(folder)
        torch.manual_seed(0)
        net, forward = make()
        for name, value in net.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif name.endswith("running_mean") or value.ndim == 1:
                value.normal_(0.3, 0.3)
        vector = forward(torch.from_numpy(given["feats"])[None])[0].numpy()
        return {"vector": vector, **{f"weights/{name}": value.numpy() for name, value in net.state_dict().items()}}

    return case


def tiny_resnet() -> Any:
    from modelscope.models.audio.sv.ResNet import BasicBlock, ResNet

    net = ResNet(BasicBlock, [1, 2, 1, 1], 4, 24, 10, "TSTP", True).eval()
    return net, net


def tiny_ecapa() -> Any:
    from modelscope.models.audio.sv.ecapa_tdnn import ECAPA_TDNN

    net = ECAPA_TDNN(24, lin_neurons=10, channels=[16, 16, 16, 16, 48], se_channels=6, attention_channels=7).eval()
    return net, lambda feats: net(feats).flatten(1)


def tiny_campplus() -> Any:
    from modelscope.models.audio.sv.DTDNN import CAMPPlus

    net = CAMPPlus(24, 10, growth_rate=4, bn_size=2, init_channels=16).eval()
    return net, net


def tiny_xvector() -> Any:
    """WeSpeaker has a second affine layer, which this copy of its class lacks."""
    from modelscope.models.audio.sv.xvector import XVEC

    net = XVEC(24, 16, 20, 10, "ASTP").eval()
    net.seg_bn_1, net.seg_2 = nn.BatchNorm1d(10, affine=False).eval(), nn.Linear(10, 10)
    return net, lambda feats: net.seg_2(net.seg_bn_1(net(feats).relu()))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


CASES: dict[str, Callable[[Path, Any], dict[str, np.ndarray]]] = {
    "campplus": campplus,
    "resemblyzer": resemblyzer,
    "speechbrain": speechbrain,
    "tiny_campplus": made_up(tiny_campplus),
    "tiny_ecapa": made_up(tiny_ecapa),
    "tiny_resnet": made_up(tiny_resnet),
    "tiny_xvector": made_up(tiny_xvector),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        for case in sys.argv[4:]:
            np.savez(Path(sys.argv[3]) / case, **CASES[case](Path(sys.argv[1]), np.load(sys.argv[2])))
