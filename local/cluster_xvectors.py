#!/usr/bin/env python3
"""Speakers by clustering: makes a data directory whose utt2spk has the cluster of each utterance's vector.

Usage: local/cluster_xvectors.py [options] <xvector.scp> <data-dir> <dest-data-dir>
  local/cluster_xvectors.py --num-clusters 100 exp/sdpn/xvectors_train/xvector.scp data/train data/train_pseudo
  local/cluster_xvectors.py --num-clusters 100 --follow true exp/sdpn/xvectors_train/xvector.scp data/train_all data/pseudo

With this, any kd_type can train a student without speaker labels. Extract vectors with a model that was trained without
labels (kd_type=sdpn), cluster them, and train on <dest-data-dir>. It has the utterances, features and other tables of
<data-dir>. Its utt2spk and spk2utt are new, with speakers cluster0001 (the largest), cluster0002, ... The speaker is no
prefix of the utterance: check with utils/validate_data_dir.sh --no-spk-sort. If <data-dir> has speakers, they are only
compared with the clusters.

--follow true puts a copy into the cluster of its original (utt2uniq); vectors of the originals are enough then. A copy
at another speed counts as another speaker and becomes sp0.9-cluster0001.
"""

import logging
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from speakerkd.conf import first_few, opt, parse_args, run
from speakerkd.files.datadir import keyed_by
from speakerkd.files.tables import read_lines, read_table, replacing, spk2utt, write_table
from speakerkd.files.vectors import read_vectors
from speakerkd.models.cluster import agglomerate, kmeans, mutual_information, purity


@dataclass(frozen=True)
class Options:
    num_clusters: int = opt(0, "number of speakers to make")
    method: str = opt("kmeans", "kmeans or agglomerative (average linkage of --cells or of the vectors)")
    cells: int = opt(
        -1, "agglomerative: clusters of k-means to start from; 0: the vectors; -1: 10000 if there are more"
    )
    restarts: int = opt(5, "number of restarts of k-means; the best is taken")
    iterations: int = opt(50, "largest number of iterations of k-means")
    follow: bool = opt(False, "true: copies follow their originals")
    seed: int = opt(0, "random seed of the starts of k-means")


def main(argv: list[str]) -> None:
    options, (vectors_scp, source_dir, dest_dir) = parse_args(Options, argv, __doc__, 3)
    torch.use_deterministic_algorithms(True)
    source, dest = Path(source_dir), Path(dest_dir)
    require_valid_options(options, source, dest)
    utterances = [line.split(None, 1)[0] for _, line in read_lines(source / "feats.scp")]
    uniq = read_table(source / "utt2uniq", 2) if options.follow and (source / "utt2uniq").exists() else {}
    vectors = read_vectors(vectors_scp)
    heard = {name: row for row, name in enumerate(vectors.ids)}
    places = {utterance: place(utterance, heard, uniq, options.follow) for utterance in utterances}
    found = {utterance: where for utterance, where in places.items() if where is not None}
    lost = [utterance for utterance in utterances if utterance not in found]
    if len(lost) > 0.05 * len(utterances):
        raise ValueError(
            f"{vectors_scp}: {len(lost)} of {len(utterances)} utterances of {source} have no vector ({first_few(lost)}); "
            "extract them, or give --follow true if they are copies of others"
        )
    rows = sorted({row for _, row in found.values()})
    labels = dict(zip(rows, cluster(torch.from_numpy(vectors.matrix[rows]), options).tolist(), strict=True))
    names = name_by_size([labels[row] for _, row in found.values()], options.num_clusters)
    utt2spk = {utterance: prefix + names[labels[row]] for utterance, (prefix, row) in found.items()}
    write(source, dest, utt2spk, lost)
    logging.info("%d utterances in, %d lost, %d in %s", len(utterances), len(lost), len(utt2spk), dest)
    if (source / "utt2spk").exists():
        compare(read_table(source / "utt2spk", 2), utt2spk)


def require_valid_options(options: Options, source: Path, dest: Path) -> None:
    if options.num_clusters < 2:
        raise ValueError("--num-clusters: say how many speakers to make, 2 or more")
    if options.method not in ("kmeans", "agglomerative"):
        raise ValueError(f"--method={options.method} is not one of: kmeans agglomerative")
    if min(options.restarts, options.iterations) < 1 or options.seed < 0 or options.cells < -1:
        raise ValueError("--restarts and --iterations must be 1 or more, --seed not negative, --cells -1 or more")
    if 0 < options.cells < options.num_clusters:
        raise ValueError(f"--cells={options.cells} can't be fewer than --num-clusters={options.num_clusters}")
    if source.resolve() == dest.resolve():
        raise ValueError(f"{dest}: its own speakers would be replaced; name another destination")
    if not (source / "feats.scp").exists():
        raise ValueError(f"{source}/feats.scp is missing; run stage 2")


def place(utterance: str, heard: Mapping[str, int], uniq: Mapping[str, str], follow: bool) -> tuple[str, int] | None:
    """The prefix of the cluster's name, and the row of the vector that decides the cluster."""
    if not follow:
        return ("", heard[utterance]) if utterance in heard else None
    original = uniq.get(utterance, utterance)
    speed = re.fullmatch(r"(sp[0-9]+\.[0-9]+-)(.+)", original)  # the names of local/augment_data_dir.py
    if speed and speed[2] in heard:
        return speed[1], heard[speed[2]]
    return ("", heard[original]) if original in heard else None


def cluster(vectors: torch.Tensor, options: Options) -> torch.Tensor:
    count = options.num_clusters
    if count > len(vectors):
        raise ValueError(f"--num-clusters={count}: there are only {len(vectors)} vectors")
    cells = options.cells if options.cells >= 0 else 10000 if len(vectors) > 10000 else 0
    if options.method == "agglomerative" and cells in (0, len(vectors)):
        return agglomerate(vectors, count)
    first = max(cells, count) if options.method == "agglomerative" else count
    first = min(first, len(vectors))
    labels, cosine = kmeans(vectors, first, options.seed, options.restarts, options.iterations)
    made = len(torch.unique(labels))
    logging.info("k-means: %d clusters, mean cosine with their centres %.4f", made, cosine)
    if made < first:
        logging.warning("%d clusters were asked for, %d are empty: many vectors are alike", first, first - made)
    return agglomerate(vectors, count, labels) if options.method == "agglomerative" else labels


def name_by_size(labels: list[int], count: int) -> dict[int, str]:
    width = max(4, len(str(count)))
    order = Counter(labels).most_common()  # clusters of equal size in their order of occurrence
    return {label: f"cluster{number:0{width}}" for number, (label, _) in enumerate(order, 1)}


def write(source: Path, dest: Path, utt2spk: Mapping[str, str], lost: list[str]) -> None:
    """Writes the directory; utt2spk last, so that a directory with it is complete."""
    try:
        dest.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{dest}: can't make this folder ({error.strerror})") from error
    for name in ("utt2spk", *keyed_by("speaker", "inverse", "report")):
        (dest / name).unlink(missing_ok=True)
    by_utterance = set(keyed_by("utterance", "some-utterances"))
    if not (source / "segments").exists():
        by_utterance |= set(keyed_by("recording"))
    copied = keyed_by("utterance", "some-utterances", "recording", "whole")
    for name in (each for each in copied if each not in ("utt2spk", "conf")):
        if not (source / name).exists():
            (dest / name).unlink(missing_ok=True)
            continue
        filtered = lost and name in by_utterance
        with replacing(dest / name) as file:
            for _, line in read_lines(source / name):
                if not filtered or line.split(None, 1)[0] in utt2spk:
                    file.write(line + "\n")
    shutil.rmtree(dest / "conf", ignore_errors=True)
    if (source / "conf").is_dir():
        shutil.copytree(source / "conf", dest / "conf")
    if lost:
        write_table(dest / "lost_utts", dict.fromkeys(lost, "has no vector"))
    write_table(dest / "spk2utt", {speaker: " ".join(utts) for speaker, utts in spk2utt(utt2spk).items()})
    write_table(dest / "utt2spk", utt2spk)


def compare(truth: Mapping[str, str], utt2spk: Mapping[str, str]) -> None:
    both = [utterance for utterance in utt2spk if utterance in truth]
    ours, theirs = (np.array([table[utterance] for utterance in both]) for table in (utt2spk, truth))
    logging.info(
        "beside the %d true speakers, for information: purity %.4f, normalised mutual information %.4f",
        len(np.unique(theirs)), purity(ours, theirs), mutual_information(ours, theirs),
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
