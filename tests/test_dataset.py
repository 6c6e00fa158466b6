"""Batches: which rows they hold, that they follow from the seed alone, and how processes share them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from speakerkd.batches.dataset import Batches, View, uniform
from speakerkd.batches.utterances import Utterances, hold_out
from speakerkd.files.kaldi import ArkWriter
from speakerkd.files.tables import write_data_dir, write_table

DIM, FRAMES = 3, 40


def make(folder: Path, utterances: dict[str, int], uniq: dict[str, str] | None = None) -> Path:
    """Frame t of utterance number u is (u, t, 0): a crop tells where it is from."""
    write_data_dir(folder, dict.fromkeys(utterances, "x"), {name: name.split("-")[0] for name in utterances})
    with ArkWriter(folder / "feats") as write:
        for number, (name, length) in enumerate(sorted(utterances.items())):
            rows = np.stack([np.full(length, number), np.arange(length), np.zeros(length)], 1)
            write(name, rows.astype(np.float32))
    write_table(folder / "utt2num_frames", utterances)
    if uniq:
        write_table(folder / "utt2uniq", uniq)
    return folder


@pytest.fixture
def twelve(tmp_path: Path) -> Utterances:
    return Utterances(make(tmp_path / "d", {f"s{i % 3}-{i:02}": FRAMES + i for i in range(12)}))


def batches(data: Utterances, **changes: object) -> Batches:
    arguments: dict = {"views": [View()], "num_frames": 10, "batch_size": 4, "seed": 0} | changes
    return Batches(data, **arguments)


def names_of(seen: Batches, step: int) -> list[str]:
    return [seen.data.scp.key(int(entry)) for entry in seen.entries_of(step)]


def test_crops_are_rows_minus_their_mean_and_labels_are_the_speakers(twelve: Utterances) -> None:
    seen = batches(twelve)
    names = []
    for step in range(seen.per_epoch):
        batch = seen[step]
        names += names_of(seen, step)
        (crops,) = batch.feats
        assert crops.shape == (4, 10, DIM) and crops.dtype == torch.float32
        ramp = torch.arange(10) - 4.5
        assert torch.allclose(crops[:, :, 1], ramp.expand(4, 10)) and not crops[:, :, 0].any()
        assert batch.labels is not None
        assert [f"s{label}" for label in batch.labels] == [name.split("-")[0] for name in names_of(seen, step)]
    assert sorted(names) == list(twelve.scp)


def test_crops_reach_every_place(twelve: Utterances) -> None:
    starts: set[int] = set()
    seen = batches(twelve, num_frames=38)
    seen.data.scp.read = lambda index, start, stop, rows, read=seen.data.scp.read: (
        starts.add(start) or read(index, start, stop, rows)
    )  # type: ignore[method-assign]
    for step in range(600):
        seen[step]
    assert starts == set(range(FRAMES + 11 - 38 + 1))


def test_same_seed_same_batches_in_any_order(twelve: Utterances) -> None:
    def flat(step: int, **changes: object) -> tuple:
        seen = batches(twelve, **changes)
        return names_of(seen, step), seen[step].feats[0].tolist()

    for step in (7, 0, 5):
        assert flat(step) == flat(step)
    assert flat(0) != flat(3) and flat(0) != flat(0, seed=1)
    one = batches(twelve)
    forward = [names_of(one, step) for step in range(9)]
    assert [names_of(one, step) for step in reversed(range(9))] == forward[::-1]


def test_workers_change_nothing(twelve: Utterances) -> None:
    def all_of(workers: int) -> list:
        kind = torch.utils.data.DataLoader(batches(twelve), batch_size=None, sampler=range(6), num_workers=workers)
        return [batch.feats[0].tolist() for batch in kind]

    assert all_of(0) == all_of(2)


def test_processes_share_a_batch(twelve: Utterances) -> None:
    for step in range(5):
        whole = batches(twelve)
        shares = [batches(twelve, rank=rank, world_size=2) for rank in range(2)]
        assert names_of(shares[0], step) + names_of(shares[1], step) == names_of(whole, step)
        assert torch.equal(torch.cat([share[step].feats[0] for share in shares]), whole[step].feats[0])
    with pytest.raises(ValueError, match="can't be shared by 3 processes"):
        batches(twelve, world_size=3)


def test_views_are_copies_of_one_utterance(tmp_path: Path) -> None:
    """An epoch goes over originals; each view draws a copy; a clean view the original."""
    names = {f"s{i % 2}-{i}{suffix}": 30 for i in range(6) for suffix in ("", "-noise", "-reverb")}
    uniq = {name: "-".join(name.split("-")[:2]) for name in names}
    data = Utterances(make(tmp_path / "d", names, uniq))
    number = dict(enumerate(sorted(names)))
    seen: set[str] = set()
    many = batches(data, views=[View(1.0, clean=True), View(0.5), View(0.5)], batch_size=3)
    assert many.num_groups == 6 and many.per_epoch == 2
    reads: list[int] = []
    data.scp.read = lambda index, start=0, stop=None, rows=None, read=data.scp.read: (
        reads.append(index) or read(index, start, stop, rows)
    )  # type: ignore[method-assign]
    for step in range(60):
        reads.clear()
        batch = many[step]
        assert [each.shape[1] for each in batch.feats] == [10, 5, 5]
        clean, first, second = (np.array(reads).reshape(3, 3)).tolist()
        for a, b, c in zip(clean, first, second, strict=True):
            assert uniq[number[a]] == number[a] == uniq[number[b]] == uniq[number[c]]
            seen |= {number[b], number[c]}
    assert seen == set(names)


def test_short_utterances_are_repeated_and_counted(tmp_path: Path) -> None:
    data = Utterances(make(tmp_path / "d", {"a-1": 4, "a-2": 25, "b-1": 10, "b-2": 9}))
    short = batches(data, num_frames=10)
    assert short.short == 2
    row = short[0].feats[0][names_of(short, 0).index("a-1")][:, 1]
    expected = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 1.0])
    assert torch.allclose(row, expected - expected.mean())


def test_held_out_speakers(tmp_path: Path) -> None:
    names = {f"s{i:02}-{j}{suffix}": 20 for i in range(9) for j in range(3) for suffix in ("", "-noise")}
    data = Utterances(make(tmp_path / "d", names, {name: name.removesuffix("-noise") for name in names}))
    everybody = data.speakers
    entries, valid, labels = hold_out(data, 3, 5)
    away = {data.scp.key(int(entry)).split("-")[0] for entry in valid}
    assert len(away) == 3 and len(valid) == 9 and sorted(np.bincount(labels)[np.unique(labels)]) == [3, 3, 3]
    assert all(not data.scp.key(int(entry)).endswith("noise") for entry in valid)
    assert data.speakers == tuple(name for name in everybody if name not in away) and len(entries) == 36
    assert data.labels is not None
    for entry in entries:
        assert data.speakers[data.labels[entry]] == data.scp.key(int(entry)).split("-")[0]
    seen = batches(data, entries=entries)
    assert not away & {utt.split("-")[0] for step in range(seen.per_epoch) for utt in names_of(seen, step)}
    with pytest.raises(ValueError, match="from 2 to 4 of 6 speakers"):
        hold_out(data, 5, 0)


def test_copies_at_other_speeds_are_held_out_with_their_speaker(tmp_path: Path) -> None:
    names = {f"{speed}s{i:02}-{j}": 20 for i in range(6) for j in range(2) for speed in ("", "sp0.9-", "sp1.1-")}
    folder = make(tmp_path / "d", names)
    write_table(folder / "utt2spk", {name: name.rpartition("-")[0] for name in sorted(names)})
    data = Utterances(folder)
    entries, valid, labels = hold_out(data, 2, 0)
    away, kept = (
        {data.scp.key(int(each)).removeprefix("sp0.9-").removeprefix("sp1.1-")[:3] for each in some}
        for some in (valid, entries)
    )
    assert len(away) == 2 and len(kept) == 4 and not away & kept
    assert len(np.unique(labels)) == 6 and len(valid) == 12 and len(data.speakers) == 12
    with pytest.raises(ValueError, match="from 2 to 2 of 4 speakers"):
        hold_out(data, 3, 0)


def test_tables_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "d", {"a-1": 20, "a-2": 20, "b-1": 20})
    for name, text, message in [
        ("utt2spk", "a-1 a\nb-1 b\n", "utt2spk:2: 'b-1' where feats.scp has 'a-2'; utils/fix_data_dir.sh"),
        ("utt2spk", "a-1 a\n", "1 lines, feats.scp has 3"),
        ("utt2num_frames", "a-1 20\na-2 20\nb-1 20\nb-2 20\n", "'b-2' where feats.scp has 'the end'"),
    ]:
        before = (folder / name).read_text()
        (folder / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            Utterances(folder)
        (folder / name).write_text(before)
    (folder / "utt2num_frames").write_text("a-1 20\na-2 25\nb-1 20\n")
    with pytest.raises(ValueError, match=r"'a-2': .* has 20 rows, but utt2num_frames says 25"):
        for step in range(30):
            batches(Utterances(folder), num_frames=22, batch_size=3)[step]


def test_uniform_is_uniform_and_each_number_by_itself() -> None:
    draws = uniform(3, 1, np.arange(100_000), 0)
    assert abs(draws.mean() - 0.5) < 0.005 and abs(draws.std() - 12**-0.5) < 0.005
    assert np.histogram(draws, 20, (0, 1))[0].min() > 4700
    assert np.array_equal(uniform(3, 1, np.array([77, 5]), 0), draws[[77, 5]])
    for other in (
        uniform(4, 1, np.arange(1000), 0),
        uniform(3, 2, np.arange(1000), 0),
        uniform(3, 1, np.arange(1000), 1),
    ):
        assert abs(np.corrcoef(other, draws[:1000])[0, 1]) < 0.1


def test_masks_hide_a_stretch_of_frames_and_one_of_bins(tmp_path: Path) -> None:
    """SpecAugment: what is hidden is 0, the mean; widths reach from none to the most; a clean view is left alone."""
    folder = make(tmp_path / "d", {f"a-{i:02}": 30 for i in range(40)})
    with ArkWriter(folder / "feats") as write:
        for i in range(40):
            write(f"a-{i:02}", np.random.default_rng(i).standard_normal((30, 12)).astype(np.float32))
    data = Utterances(folder)
    seen = batches(data, views=[View(1.0, clean=True), View()], num_frames=20, batch_size=40, mask=(5, 3))
    frames, bins = [], []
    for step in range(20):
        clean, masked = seen[step].feats
        assert (clean != 0).all()
        for crop in masked:
            rows, columns = (crop == 0).all(1), (crop == 0).all(0)
            frames.append(int(rows.sum()))
            bins.append(int(columns.sum()))
            for hidden in (rows, columns):
                places = torch.nonzero(hidden).flatten().tolist()
                assert places == list(range(min(places, default=0), min(places, default=0) + len(places)))
            assert (crop[~rows][:, ~columns] != 0).all()
    assert set(frames) == set(range(6)) and set(bins) == set(range(4))


def test_copies_at_other_speeds_are_groups_of_their_own(tmp_path: Path) -> None:
    """As utils/perturb_data_dir_speed.sh of Kaldi writes utt2uniq: the original's name for each speed."""
    names = {
        f"{speed}s{i % 3}-{i}{suffix}": 30 for i in range(6) for speed in ("", "sp0.9-") for suffix in ("", "-noise")
    }
    uniq = {name: name.removeprefix("sp0.9-").removesuffix("-noise") for name in names}
    folder = make(tmp_path / "d", names, uniq)
    write_table(folder / "utt2spk", {name: name.removesuffix("-noise").rpartition("-")[0] for name in names})
    data = Utterances(folder)
    assert data.labels is not None
    groups = {(int(group), int(label)) for group, label in zip(data.group_of, data.labels, strict=True)}
    assert len(groups) == len(set(data.group_of.tolist())) == 12
    ordered = Batches(data, [View()], 10, 8, 0, utts_per_speaker=2)
    for step in range(20):
        labels = ordered[step].labels
        assert labels is not None
        assert np.bincount(labels.numpy()).max() == 2 and (labels[::2] == labels[1::2]).all()


def test_groups_of_one_speaker_are_numbered_as_before(tmp_path: Path) -> None:
    """By the sorted names of the originals: what a seed draws stays the same."""
    names = {f"s{i % 3}-{i:02}{suffix}": 30 for i in range(9) for suffix in ("", "-noise")}
    uniq = {name: name.removesuffix("-noise") for name in names}
    data = Utterances(make(tmp_path / "d", names, uniq))
    number = {name: index for index, name in enumerate(sorted(set(uniq.values())))}
    assert data.group_of.tolist() == [number[uniq[name]] for name in sorted(names)]


@pytest.mark.parametrize("text", ["x", "0", "-3", "1.5", "99999999999", "٣"])
def test_odd_frame_counts_are_named(tmp_path: Path, text: str) -> None:
    folder = make(tmp_path / "d", {"a-1": 20, "a-2": 20, "b-1": 20})
    (folder / "utt2num_frames").write_text(f"a-1 20\na-2 {text}\nb-1 20\n")
    with pytest.raises(ValueError, match=rf"utt2num_frames:2: '{text}' is not a number from 1"):
        Utterances(folder)
