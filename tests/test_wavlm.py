"""WavLM, wav2vec 2.0 and HuBERT: against the package `transformers` on random weights, their import by published names, the
head by the formulas.
"""

import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from conftest import ROOT
from torch import Tensor
from torch.nn import functional as F

from speakerkd.feats.frontend import front_end_of
from speakerkd.models import SpeakerNet, load_net
from speakerkd.models.frozen import Frozen
from speakerkd.models.wavlm import WavLM, WavLMConf

if sys.version_info < (3, 11):  # which its releases no longer run on
    transformers = pytest.importorskip("transformers", reason="transformers needs Python 3.11")
else:
    import transformers

SIZE, LAYERS, HEADS, BUCKETS, DISTANCE = 32, 3, 4, 320, 800
# fairseq's names, as UniSpeech publishes them, of transformers' names
NAMES = (
    (r"^feature_extractor\.conv_layers\.(\d+)\.conv\.", r"feature_extractor.conv_layers.\1.0."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.layer_norm\.", r"feature_extractor.conv_layers.\1.2.NORM."),
    (r"^feature_projection\.projection\.", "post_extract_proj."),
    (r"^feature_projection\.layer_norm\.", "layer_norm."),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original0", "pos_conv.0.weight_g"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original1", "pos_conv.0.weight_v"),
    (r"pos_conv_embed\.conv\.bias", "pos_conv.0.bias"),
    (r"\.attention\.rel_attn_embed\.", ".self_attn.relative_attention_bias."),
    (r"\.attention\.gru_rel_pos_linear\.", ".self_attn.grep_linear."),
    (r"\.attention\.gru_rel_pos_const$", ".self_attn.grep_a"),
    (r"\.attention\.", ".self_attn."),
    (r"(layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"\.feed_forward\.intermediate_dense\.", ".fc1."),
    (r"\.feed_forward\.output_dense\.", ".fc2."),
    (r"^masked_spec_embed$", "mask_emb"),
)


def published(model: torch.nn.Module, large: bool, size: int = SIZE) -> dict[str, Tensor]:
    """The weights of a model of transformers, and a random head, by the names of wavlm_large_finetune.pth."""
    weights = {}
    for name, value in model.state_dict().items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        weights["feature_extract.model." + name.replace("2.NORM.", "2.1." if large else "2.")] = value
    weights["feature_weight"] = torch.randn(LAYERS + 1)
    channels, joined, dim = 16, 24, 10

    def layer(name: str, rows: int, columns: int, width: int = 1) -> None:
        weights[f"{name}.weight"] = torch.randn(rows, columns, width) / (columns * width) ** 0.5
        weights[f"{name}.bias"] = 0.1 * torch.randn(rows)

    def norm(name: str, size: int) -> None:
        weights.update({f"{name}.weight": 1 + 0.1 * torch.randn(size), f"{name}.bias": 0.1 * torch.randn(size),
                        f"{name}.running_mean": 0.1 * torch.randn(size), f"{name}.running_var": 1 + torch.rand(size),
                        f"{name}.num_batches_tracked": torch.tensor(3)})  # fmt: skip

    layer("layer1.conv", channels, size, 5)
    norm("layer1.bn", channels)
    for block in ("layer2", "layer3", "layer4"):
        for part in ("Conv1dReluBn1", "Conv1dReluBn2"):
            layer(f"{block}.{part}.conv", channels, channels)
            norm(f"{block}.{part}.bn", channels)
        for number in range(7):
            layer(f"{block}.Res2Conv1dReluBn.convs.{number}", 2, 2, 3)
            norm(f"{block}.Res2Conv1dReluBn.bns.{number}", 2)
        for number, (rows, columns) in enumerate(((128, channels), (channels, 128)), 1):
            layer(f"{block}.SE_Connect.linear{number}", rows, columns)
            weights[f"{block}.SE_Connect.linear{number}.weight"].squeeze_(-1)
    layer("conv", joined, 3 * channels)
    layer("pooling.linear1", 128, joined)
    layer("pooling.linear2", joined, 128)
    norm("bn", 2 * joined)
    layer("linear", dim, 2 * joined)
    weights["linear.weight"].squeeze_(-1)
    weights["loss_calculator.projection.weight"] = torch.randn(7, dim)
    return weights


def formulas(states: list[Tensor], weights: dict[str, Tensor]) -> Tensor:
    """The head, written out: weighted layers, instance norm, ECAPA-TDNN small without global context."""

    def conv(name: str, maps: Tensor, dilation: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.conv1d(
            maps, weight, weights[f"{name}.bias"], padding=dilation * (weight.shape[2] // 2), dilation=dilation
        )

    def norm(name: str, maps: Tensor) -> Tensor:
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(maps, mean, variance, weights[f"{name}.weight"], weights[f"{name}.bias"])

    share = weights["feature_weight"].softmax(0)
    mixed = sum(s * state for s, state in zip(share, states, strict=True)).transpose(1, 2) + 1e-6
    mixed = (mixed - mixed.mean(2, keepdim=True)) / (mixed.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
    out = norm("layer1.bn", conv("layer1.conv", mixed).relu())
    outs = []
    for number, block in enumerate(("layer2", "layer3", "layer4"), 2):
        inner = norm(f"{block}.Conv1dReluBn1.bn", conv(f"{block}.Conv1dReluBn1.conv", out).relu())
        parts, done = inner.split(2, 1), []
        for each in range(7):
            part = parts[each] + done[-1] if done else parts[each]
            part = conv(f"{block}.Res2Conv1dReluBn.convs.{each}", part, number).relu()
            done.append(norm(f"{block}.Res2Conv1dReluBn.bns.{each}", part))
        inner = torch.cat([*done, parts[7]], 1)
        inner = norm(f"{block}.Conv1dReluBn2.bn", conv(f"{block}.Conv1dReluBn2.conv", inner).relu())
        first, second = (f"{block}.SE_Connect.linear{each}" for each in (1, 2))
        gate = F.linear(inner.mean(2), weights[f"{first}.weight"], weights[f"{first}.bias"]).relu()
        gate = F.linear(gate, weights[f"{second}.weight"], weights[f"{second}.bias"]).sigmoid()
        out = out + inner * gate[:, :, None]
        outs.append(out)
    maps = conv("conv", torch.cat(outs, 1)).relu()
    alpha = conv("pooling.linear2", conv("pooling.linear1", maps).tanh()).softmax(2)
    mean = (alpha * maps).sum(2)
    deviation = ((alpha * maps**2).sum(2) - mean**2).clamp(min=1e-9).sqrt()
    return F.linear(norm("bn", torch.cat([mean, deviation], 1)), weights["linear.weight"], weights["linear.bias"])


def randomised(kind: Callable[..., torch.nn.Module], config: object) -> torch.nn.Module:
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for each in model.parameters():
            each.add_(0.05 * torch.randn_like(each))  # norms and biases too
    return model


def imported(family: str, weights: dict[str, Tensor], folder: Path, monkeypatch: pytest.MonkeyPatch) -> SpeakerNet:
    torch.save(weights, folder / "weights.pth")
    monkeypatch.chdir(ROOT / "egs/mini/v1")
    main = runpy.run_path(str(ROOT / "local/import_checkpoint.py"))["main"]
    main(["--family", family, str(folder / "weights.pth"), str(folder / "exp")])
    return load_net(folder / "exp/final.pt")


def states_of(model: torch.nn.Module, wave: Tensor) -> list[Tensor]:
    """s3prl takes the encoder's output as the last state, which is behind its last norm."""
    with torch.inference_mode():
        said = model(wave, output_hidden_states=True)
    return [*said.hidden_states[:-1], said.last_hidden_state]


def others(name: str, large: bool) -> torch.nn.Module:
    """wav2vec 2.0 or HuBERT of transformers, with random weights. Heads have 64 channels, as published."""
    kind, config = {
        "wav2vec2": (transformers.Wav2Vec2Model, transformers.Wav2Vec2Config),
        "hubert": (transformers.HubertModel, transformers.HubertConfig),
    }[name]
    return randomised(kind, config(
        hidden_size=128, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=48,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, do_stable_layer_norm=large,
        feat_extract_norm="layer" if large else "group", conv_bias=large and name == "wav2vec2",
    ))  # fmt: skip


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("name", ["wav2vec2", "hubert"])
def test_other_trunks_under_the_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, large: bool) -> None:
    """By UniSpeech's names; and as a teacher, prepared once, what is said of a wave is the same."""
    theirs = others(name, large)
    weights = published(theirs, large, 128)
    net = imported("unispeech", weights, tmp_path, monkeypatch)
    assert isinstance(net.encoder, WavLM) and net.encoder.conf.trunk == "wav2vec2" and net.encoder.conf.heads == 2
    wave = 0.1 * torch.randn(2, 16000)
    heard = F.layer_norm(wave, wave.shape[1:]) if large else wave
    expected, frozen = states_of(theirs, heard), Frozen(net)
    with torch.inference_mode():
        for ours, other in zip(net.encoder.hidden_states(heard), expected, strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)
        said = net(wave[:, :, None]).embedding
        torch.testing.assert_close(said, formulas(expected, weights), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(frozen(wave[:, :, None]).embedding, said, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("name", ["wav2vec2", "hubert", "wavlm"])
def test_bundles_of_torchaudio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, large: bool) -> None:
    """No head: the mean of all layers and frames. Bundles that normalise waves keep their weights under "model."."""
    if name == "wavlm":
        config = transformers.WavLMConfig(
            hidden_size=128, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=48,
            num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, do_stable_layer_norm=large,
            feat_extract_norm="layer" if large else "group", conv_bias=False,
        )  # fmt: skip
        theirs = randomised(transformers.WavLMModel, config)
    else:
        theirs = others(name, large)
    bundled = torchaudio.models.wav2vec2.utils.import_huggingface_model(theirs).eval()
    weights = {f"model.{key}" if large else key: value for key, value in bundled.state_dict().items()}
    old = {re.sub(r"parametrizations\.weight\.original(\d)", lambda found: f"weight_{'gv'[int(found[1])]}", key): value
           for key, value in weights.items()}  # fmt: skip
    assert len(set(old) - set(weights)) == 2
    wave = 0.1 * torch.randn(2, 16000)
    heard = F.layer_norm(wave, wave.shape[1:]) if large else wave
    expected = torch.stack(states_of(theirs, heard)).mean((0, 2))
    for number, named in enumerate((weights, old)):  # as files were written before and after a change of PyTorch's
        (tmp_path / str(number)).mkdir()
        net = imported("torchaudio", named, tmp_path / str(number), monkeypatch)
        assert net.dim == 128 and net.head is None
        frozen = Frozen(net)
        with torch.inference_mode():
            torch.testing.assert_close(net(wave[:, :, None]).embedding, expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(frozen(wave[:, :, None]).embedding, expected, rtol=1e-3, atol=1e-4)
    short = {key: value for key, value in weights.items() if "layers.1.final_layer_norm" not in key}
    with pytest.raises(ValueError, match=r"missing: .*layers\.1\.final_layer_norm"):
        imported("torchaudio", short, tmp_path, monkeypatch)


@pytest.mark.parametrize("large", [True, False])
def test_import_by_the_published_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool) -> None:
    config = transformers.WavLMConfig(
        hidden_size=SIZE, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=48,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, num_buckets=BUCKETS, max_bucket_distance=DISTANCE,
        do_stable_layer_norm=large, feat_extract_norm="layer" if large else "group", conv_bias=False,
    )  # fmt: skip
    theirs = randomised(transformers.WavLMModel, config)
    weights = published(theirs, large)
    torch.save({"model": weights}, tmp_path / "finetune.pth")
    monkeypatch.chdir(ROOT / "egs/mini/v1")
    main = runpy.run_path(str(ROOT / "local/import_checkpoint.py"))["main"]
    main(["--family", "unispeech", str(tmp_path / "finetune.pth"), str(tmp_path / "exp")])
    net = load_net(tmp_path / "exp/final.pt")
    assert isinstance(net.encoder, WavLM) and net.head is not None and net.head.num_classes == 7
    assert torch.equal(net.head.weight, weights["loss_calculator.projection.weight"])
    front_end = front_end_of(net.info, "")
    assert front_end is not None and front_end.rate == 16000 and front_end.conf.mean == "none"
    wave = 0.1 * torch.randn(2, 16000)
    heard = F.layer_norm(wave, wave.shape[1:]) if large else wave
    with torch.inference_mode():
        expected = states_of(theirs, heard)
        states = net.encoder.hidden_states(heard)
        assert len(states) == len(expected) == LAYERS + 1
        for ours, other in zip(states, expected, strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)
        feats = torch.from_numpy(np.stack([front_end(each.numpy()) for each in wave]))
        torch.testing.assert_close(net(feats).embedding, formulas(expected, weights), rtol=1e-3, atol=1e-4)
    torch.save({"model": {**weights, "extra.weight": torch.zeros(3)}}, tmp_path / "more.pth")
    with pytest.raises(ValueError, match=r"left over: extra\.weight"):
        main(["--family", "unispeech", str(tmp_path / "more.pth"), str(tmp_path / "exp2")])


def test_the_large_one_has_the_published_size() -> None:
    with torch.device("meta"):
        net = WavLM(WavLMConf(), 1)
    classifier = 5994 * 256  # the file of 1.30 GB holds some 325 million numbers, and these are among them
    assert abs((sum(each.numel() for each in net.parameters()) + classifier) / 1e6 - 325) < 1
    with pytest.raises(ValueError, match="WavLM takes waves"):
        WavLM(WavLMConf(), 80)
