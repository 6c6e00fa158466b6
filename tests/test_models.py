"""Models: published sizes, shapes, any length, batch independence, pooling, checkpoints."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from speakerkd.losses.margin import MarginConf, MarginHead
from speakerkd.models import MODELS, SpeakerNet, load_net, make_net, read_model, save_net
from speakerkd.models.pooling import AttentivePooling, StatisticsPooling, at_least

ROOT = Path(__file__).resolve().parent.parent
FEAT_DIM = 24
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "xvector": ("xvector", {"channels": 16, "stats_channels": 24, "embedding_dim": 8}),
    "xvector attentive": (
        "xvector",
        {"channels": 16, "stats_channels": 24, "embedding_dim": 8, "pooling": "attentive"},
    ),
    "ecapa": ("ecapa", {"channels": 16, "joined_channels": 24, "se_channels": 8, "embedding_dim": 8}),
    "ecapa speechbrain": (
        "ecapa",
        {"channels": 16, "joined_channels": 24, "se_channels": 8, "embedding_dim": 8, "layout": "speechbrain"},
    ),
    "resnet": ("resnet", {"blocks": (1, 2, 1, 1), "base_channels": 4, "embedding_dim": 8}),
    "bottleneck": (
        "resnet",
        {"block": "bottleneck", "blocks": (1, 1, 1, 1), "base_channels": 4, "embedding_dim": 8, "embedding_layers": 2},
    ),
    "campplus": (
        "campplus",
        {"front_channels": 4, "channels": 8, "growth": 4, "layers": (2, 2, 2), "embedding_dim": 8},
    ),
    "dvector": ("dvector", {"hidden": 16, "layers": 4, "embedding_dim": 8}),
}
LENGTHS = (1, 2, 9, 10, 15, 16, 57, 200, 211)

# millions as published for 80 mel bands: seven of WeSpeaker's voxceleb/v2, two of 3D-Speaker, one of SpeechBrain
PUBLISHED: list[tuple[str, dict[str, Any], float]] = [
    ("xvector", {}, 4.61),
    ("ecapa", {}, 6.19),
    ("ecapa", {"channels": 1024}, 14.65),
    ("resnet", {}, 6.63),
    ("resnet", {"block": "bottleneck", "blocks": (6, 16, 48, 3)}, 23.79),
    ("resnet", {"block": "bottleneck", "blocks": (10, 20, 64, 3)}, 28.62),
    ("campplus", {}, 7.18),
    ("xvector", {"embedding_layers": 1}, 4.34),
    ("resnet", {"embedding_layers": 2, "embedding_dim": 192}, 6.34),
    ("ecapa", {"channels": 1024, "joined_channels": 3072, "layout": "speechbrain"}, 20.77),
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def encoder_of(key: str, feat_dim: int = FEAT_DIM) -> Any:
    """A tiny net whose batch norms have seen some data, in eval mode."""
    name, options = TINY[key]
    encoder: Any = MODELS[name](MODELS[name].Conf(**options), feat_dim)
    with torch.no_grad():
        for _ in range(3):
            encoder(torch.randn(4, 40, feat_dim))
    return encoder.eval()


def net_of(key: str = "xvector") -> SpeakerNet:
    encoder = encoder_of(key)
    net = SpeakerNet(encoder, MarginHead(MarginConf(sub_centers=2), encoder.dim, 3), ("ann", "bob", "cid"))
    return net.eval()


@pytest.mark.parametrize(("name", "options", "millions"), PUBLISHED)
def test_published_sizes(name: str, options: dict[str, Any], millions: float) -> None:
    with torch.device("meta"):
        encoder: Any = MODELS[name](MODELS[name].Conf(**options), 80)
    count = sum(weight.numel() for weight in encoder.parameters()) / 1e6
    assert count == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("path", sorted(ROOT.glob("egs/*/v1/conf/model/*.conf")), ids=lambda path: path.stem)
def test_conf_files_build(path: Path) -> None:
    with torch.device("meta"):
        net = make_net(path, 80)
        encoded = net(torch.empty(2, 200, 80, device="meta"))
    assert encoded.embedding.shape == (2, net.dim)
    comment = path.read_text().splitlines()[0]
    count = sum(weight.numel() for weight in net.parameters()) / 1e6
    assert f"{count:.2f} M" in comment, "the first line says how large the model is"


@pytest.mark.parametrize("key", TINY)
def test_any_length_and_shapes(key: str) -> None:
    encoder = encoder_of(key)
    for length in LENGTHS:
        encoded = encoder(torch.randn(2, length, FEAT_DIM))
        assert encoded.embedding.shape == (2, encoder.dim) and encoded.embedding.isfinite().all(), length
        assert tuple(stage.shape[1] for stage in encoded.stages) == encoder.stage_channels
        assert len(encoded.stages) == 4
        assert all(stage.isfinite().all() and stage.shape[0] == 2 for stage in encoded.stages)
        assert all(stage.ndim == (4 if TINY[key][0] == "resnet" else 3) for stage in encoded.stages)


@pytest.mark.parametrize("key", TINY)
def test_constant_and_silent_input_is_finite(key: str) -> None:
    encoder = encoder_of(key).train()
    feats = torch.zeros(3, 12, FEAT_DIM)
    feats[1] = 30
    encoder(feats.requires_grad_()).embedding.square().sum().backward()
    assert feats.grad is not None and feats.grad.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in encoder.parameters())


@pytest.mark.parametrize("feat_dim", [20, 23, 30])
@pytest.mark.parametrize("key", ["resnet", "campplus"])
def test_number_of_bands_need_not_divide_by_eight(key: str, feat_dim: int) -> None:
    assert encoder_of(key, feat_dim)(torch.randn(2, 30, feat_dim)).embedding.shape == (2, 8)


@pytest.mark.parametrize("key", TINY)
def test_embedding_does_not_depend_on_the_batch(key: str) -> None:
    encoder = encoder_of(key)
    feats = torch.randn(5, 63, FEAT_DIM)
    feats[3] *= 100
    with torch.no_grad():
        together = encoder(feats)
        alone = [encoder(each.unsqueeze(0)) for each in feats]
    torch.testing.assert_close(together.embedding, torch.cat([each.embedding for each in alone]), rtol=1e-4, atol=1e-5)
    for index, stage in enumerate(together.stages):
        torch.testing.assert_close(stage, torch.cat([each.stages[index] for each in alone]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("key", TINY)
def test_gradients_reach_every_parameter(key: str) -> None:
    encoder = encoder_of(key).train()
    encoder(torch.randn(4, 60, FEAT_DIM)).embedding.square().mul(torch.randn(8)).sum().backward()
    without = [name for name, weight in encoder.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []


@pytest.mark.parametrize("key", TINY)
def test_bfloat16_autocast_is_finite_and_close(key: str) -> None:
    encoder = encoder_of(key)
    feats = torch.randn(3, 60, FEAT_DIM)
    with torch.no_grad():
        exact = encoder(feats).embedding
        with torch.autocast("cpu", torch.bfloat16):
            rounded = encoder(feats).embedding
    assert rounded.isfinite().all()
    assert nn.functional.cosine_similarity(exact, rounded.float()).min() > 0.98


def test_campplus_masks_are_those_of_whole_length_contexts() -> None:
    """The mask is computed once per segment; spreading the means over the frames first gives the same."""
    from speakerkd.models.campplus import SEGMENT, ContextMask

    mask = ContextMask(6, 4, 2)
    frames = torch.randn(2, 6, 2 * SEGMENT + 37)
    parts = [part.mean(-1, keepdim=True).expand_as(part) for part in frames.split(SEGMENT, -1)]
    context = frames.mean(-1, keepdim=True) + torch.cat(parts, -1)
    expected = mask.local(frames) * mask.linear2(mask.linear1(context).relu()).sigmoid()
    torch.testing.assert_close(mask(frames), expected, rtol=1e-5, atol=1e-6)


def test_short_utterances_are_repeated() -> None:
    feats = torch.arange(3.0).reshape(1, 3, 1)
    assert at_least(feats, 7).flatten().tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert at_least(feats, 3) is feats
    with pytest.raises(ValueError, match="0 frames"):
        at_least(feats[:, :0], 7)
    encoder = encoder_of("xvector")
    short = torch.randn(1, 8, FEAT_DIM)
    torch.testing.assert_close(encoder(short).embedding, encoder(short.repeat(1, 2, 1)).embedding)


@pytest.mark.parametrize("shape", [(2, 5, 11), (2, 3, 4, 11)])
def test_statistics_pooling_is_numpys(shape: tuple[int, ...]) -> None:
    maps = torch.randn(shape, dtype=torch.float64) + 5
    values = maps.numpy().reshape(2, -1, 11)
    expected = np.concatenate([values.mean(-1), np.sqrt(values.var(-1, ddof=1) + 1e-7)], 1)
    np.testing.assert_allclose(StatisticsPooling(1)(maps).numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("make", [StatisticsPooling, AttentivePooling, lambda c: AttentivePooling(c, 8, True)])
@pytest.mark.parametrize("frames", [1, 2, 30])
def test_pooling_of_constant_maps_has_finite_gradients(make: Callable[[int], nn.Module], frames: int) -> None:
    maps = torch.full((2, 6, frames), 3.0, requires_grad=True)
    make(6)(maps).sum().backward()
    assert maps.grad is not None and maps.grad.isfinite().all()


@pytest.mark.parametrize("context", [False, True])
def test_attention_with_even_weights_is_statistics_pooling(context: bool) -> None:
    pooling = AttentivePooling(6, 8, context)
    nn.init.zeros_(pooling.linear2.weight)
    maps = torch.randn(2, 6, 40)
    mean, deviation = StatisticsPooling(6)(maps).chunk(2, 1)
    expected = torch.cat([mean, deviation * (39 / 40) ** 0.5], 1)  # the weighted variance divides by n, not n - 1
    torch.testing.assert_close(pooling(maps), expected)


def test_attention_on_one_frame_is_that_frame() -> None:
    pooling = AttentivePooling(3, 4)
    nn.init.zeros_(pooling.linear2.weight)
    maps = torch.randn(1, 3, 5)

    def attend(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return torch.where(torch.arange(5) == 2, 100.0, 0.0).expand_as(output)

    pooling.linear2.register_forward_hook(attend)
    mean, deviation = pooling(maps).chunk(2, 1)
    torch.testing.assert_close(mean, maps[..., 2])
    assert deviation.max() < 1e-3


def test_pooling_far_from_zero_keeps_its_deviation() -> None:
    noise = torch.randn(1, 4, 200)
    pooling = AttentivePooling(4, 8)
    nn.init.zeros_(pooling.linear2.weight)
    for pooled in (pooling(noise + 1000), StatisticsPooling(4)(noise + 1000)):
        torch.testing.assert_close(pooled[:, 4:], noise.std(-1), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("key", TINY)
def test_checkpoint_round_trip(key: str, tmp_path: Path) -> None:
    net, path = net_of(key), tmp_path / "final.pt"
    save_net(path, net, {"cmn": True, "fbank": {"num_mel_bins": FEAT_DIM}, "licence": "CC0"})
    torch.manual_seed(7)
    state = torch.get_rng_state()
    loaded = load_net(path)
    assert torch.equal(torch.get_rng_state(), state), "loading draws no random numbers"
    feats = torch.randn(2, 33, FEAT_DIM)
    before, after = net(feats).embedding, loaded(feats).embedding
    assert torch.equal(before, after)
    assert torch.equal(net.logits(before), loaded.logits(after))
    assert loaded.speakers == ("ann", "bob", "cid") and loaded.info["fbank"]["num_mel_bins"] == FEAT_DIM
    assert loaded.encoder.conf == net.encoder.conf and loaded.head is not None and loaded.head.conf == net.head.conf
    assert not loaded.training and all(weight.requires_grad for weight in loaded.parameters())
    assert [each.name for each in tmp_path.iterdir()] == ["final.pt"]
    save_net(tmp_path / "again.pt", loaded)
    assert load_net(tmp_path / "again.pt").info == loaded.info


def test_checkpoint_is_plain_data_and_copies_are_independent(tmp_path: Path) -> None:
    path = tmp_path / "final.pt"
    save_net(path, SpeakerNet(encoder_of("resnet")))
    record = torch.load(path, weights_only=True)
    json.dumps({name: value for name, value in record.items() if name != "weights"})
    assert record["model"] == "resnet" and record["conf"]["blocks"] == (1, 2, 1, 1) and record["head"] is None
    first, second = load_net(path), load_net(path)
    with torch.no_grad():
        first.encoder.conv1.weight.zero_()
    assert second.encoder.conv1.weight.any()
    with pytest.raises(ValueError, match="no classifier"):
        first.logits(torch.randn(1, 8))


def damage_another_model(record: dict[str, Any]) -> None:
    record["model"] = "ecapa"


def damage_unknown_model(record: dict[str, Any]) -> None:
    record["model"] = "gmm"


def damage_missing(record: dict[str, Any]) -> None:
    del record["weights"]["encoder.frame1.conv.weight"]


def damage_left_over(record: dict[str, Any]) -> None:
    record["weights"]["encoder.frame9.conv.weight"] = torch.zeros(1)


def damage_shape(record: dict[str, Any]) -> None:
    record["conf"]["channels"] = 17


def damage_speakers(record: dict[str, Any]) -> None:
    record["speakers"].append("dan")


def damage_field(record: dict[str, Any]) -> None:
    del record["feat_dim"]


def damage_format(record: dict[str, Any]) -> None:
    record["format"] = "other-2"


WEIGHT = "encoder.frame1.conv.weight"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("format", torch.zeros(2), "not a net of speakerkd"),
        ("feat_dim", -1, "no model can be built"),
        ("conf", {"channels": 2**40}, "no model can be built"),
        ("conf", {"channels": torch.zeros(2)}, "no model can be built"),
        ("head", 5, "no model can be built"),
        ("head", [], "no model can be built"),
        ("weights", None, f"no numbers as they are needed in {WEIGHT}"),
        ("weights", "x", f"no numbers as they are needed in {WEIGHT}"),
        ("weights", torch.zeros(8, 10, 5, dtype=torch.int64), f"no numbers as they are needed in {WEIGHT}"),
        ("weights", torch.zeros(8, 10, 5, dtype=torch.complex64), f"no numbers as they are needed in {WEIGHT}"),
        ("weights", torch.zeros(8, 10, 5).to_sparse(), f"no numbers as they are needed in {WEIGHT}"),
    ],
)
def test_odd_checkpoints_are_errors_in_a_sentence(field: str, value: Any, words: str, tmp_path: Path) -> None:
    """Each of these was a traceback."""
    path = tmp_path / "final.pt"
    save_net(path, net_of())
    record = torch.load(path, weights_only=True)
    if field == "weights":
        record["weights"][WEIGHT] = value
    elif isinstance(value, dict):
        record[field] |= value
    else:
        record[field] = value
    torch.save(record, path)
    with pytest.raises(ValueError, match=f"final.pt: {words}"):
        load_net(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_another_model, "no option --stats-channels"),
        (damage_unknown_model, "'gmm'.*known: campplus dvector ecapa"),
        (damage_missing, r"missing: encoder\.frame1\.conv\.weight"),
        (damage_left_over, r"left over: encoder\.frame9"),
        (damage_shape, "of another shape"),
        (damage_speakers, "3 classes.*4 speakers"),
        (damage_field, "lacks feat_dim"),
        (damage_format, "other-2"),
    ],
)
def test_wrong_checkpoints_are_errors(damage: Callable[[dict[str, Any]], None], words: str, tmp_path: Path) -> None:
    path = tmp_path / "final.pt"
    save_net(path, net_of())
    record = torch.load(path, weights_only=True)
    damage(record)
    torch.save(record, path)
    with pytest.raises(ValueError, match=f"final.pt: .*{words}"):
        load_net(path)


def test_broken_files_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "final.pt"
    save_net(path, net_of())
    whole = path.read_bytes()
    for text in (b"", b"not a net\n", whole[:10], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(text)
        with pytest.raises(ValueError, match="not a checkpoint, or cut short"):
            load_net(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="not a net of speakerkd"):
        load_net(path)
    torch.save(nn.Linear(2, 2), path)  # pickled code, not plain data
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_net(path)
    with pytest.raises(ValueError, match=r"none\.pt: can't be read"):
        load_net(tmp_path / "none.pt")


def test_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path, net = tmp_path / "final.pt", net_of()
    save_net(path, net)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_net(path, net, {"not json": object()})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--channels=3\n", "--type=name is missing"),
        ("--type=gmm\n", "--type=gmm is not known .allowed: campplus dvector ecapa resnet wavlm xvector"),
        ("--type=xvector\n--chanels=3\n", "no option --chanels"),
        ("--type=resnet\n--blocks=1:2\n", "m.conf: --blocks=1:2 is not four"),
        ("--type=resnet\n--block=wide\n", "--block=wide"),
        ("--type=ecapa\n--channels=12\n", "--channels=12 is not a multiple"),
        ("--type=ecapa\n--layout=x\n", "--layout=x"),
        ("--type=ecapa\n--pooling=x\n", "--pooling=x"),
        ("--type=xvector\n--pooling=x\n", "--pooling=x"),
        ("--type=xvector\n--embedding-layers=3\n", "--embedding-layers=3"),
        ("--type=campplus\n--layers=3\n", "--layers=3"),
    ],
)
def test_wrong_model_confs_are_errors(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "m.conf"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        make_net(path, 80)


def test_make_net_with_a_classifier(tmp_path: Path) -> None:
    path = tmp_path / "m.conf"
    path.write_text("--type=xvector  # small\n--channels=16\n--stats-channels=24\n--embedding-dim=8\n")
    name, conf = read_model(path)
    assert name == "xvector" and conf.channels == 16 and conf.embedding_layers == 2
    net = make_net(path, FEAT_DIM, ("a", "b"), MarginConf())
    assert net.logits(net(torch.randn(3, 20, FEAT_DIM)).embedding).shape == (3, 2)
    with pytest.raises(ValueError, match="2 classes"):
        SpeakerNet(net.encoder, net.head, ("a", "b", "c"))


def test_model_info(tmp_path: Path) -> None:
    save_net(tmp_path / "final.pt", net_of())
    command = [sys.executable, "local/model_info.py", "--seconds", "2", "egs/mini/v1/conf/model/xvector.conf"]
    result = subprocess.run([*command, tmp_path / "final.pt"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    header, conf, trained = result.stdout.splitlines()
    assert header.split() == ["model", "parameters", "GMAC/s", "embedding", "feat-dim", "RTF"]
    assert conf.split()[:3] == ["xvector", "0.33", "M"]
    assert trained.split()[4:6] == ["8", str(FEAT_DIM)] and 0 < float(trained.split()[-1]) < 10
    # two seconds of an x-vector by hand: convolutions at their output lengths, then the affine layers
    frames = 196 * 80 * 5 * 128 + 192 * 128 * 3 * 128 + 186 * (128 * 3 * 128 + 128 * 128 + 128 * 384)
    assert float(conf.split()[3]) == pytest.approx((frames + 768 * 128 + 128 * 128) / 2e9, abs=6e-4)


def test_model_info_without_models() -> None:
    result = subprocess.run([sys.executable, "local/model_info.py"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and "no model is given" in result.stderr
