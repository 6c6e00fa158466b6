"""Clusters of vectors by cosine: k-means (k-means++ starts) and agglomeration (average linkage); how well they fit labels.

Everything is computed in blocks, so a million vectors fit into memory. The result depends on the seed alone.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 1 << 24  # cosines that are held at once: 64 MiB
SAMPLE = 20  # vectors of each cluster, about, among which k-means++ looks for starts
SAME = 1e-6  # cosines that differ by less count as equal, so that rounding can't make the chain run in a circle


def kmeans(vectors: Tensor, clusters: int, seed: int, restarts: int = 5, iterations: int = 50) -> tuple[Tensor, float]:
    """(N, D) -> the cluster of each vector, and the mean cosine with the centres. The best restart is taken."""
    unit = F.normalize(vectors)
    generator = torch.Generator().manual_seed(seed)
    best, reached = torch.zeros(len(unit), dtype=torch.long), -2.0
    for _ in range(restarts):
        labels, found = _lloyd(unit, _starts(unit, clusters, generator), iterations)
        if found > reached:
            best, reached = labels, found
    return best, reached


def _starts(unit: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++ on a sample. A start is drawn with its squared distance from the earlier starts as the weight. Of several
    drawn starts the one is taken that brings the other vectors nearest."""
    if len(unit) > max(SAMPLE * clusters, 20000):
        unit = unit[torch.randperm(len(unit), generator=generator)[: max(SAMPLE * clusters, 20000)]]
    draws = 2 + int(math.log(clusters))
    chosen = torch.randint(len(unit), (1,), generator=generator)
    distance = _squares(unit, chosen)[:, 0]
    for _ in range(clusters - 1):
        bounds = distance.double().cumsum(0)
        drawn = torch.searchsorted(bounds, bounds[-1] * torch.rand(draws, generator=generator).double(), right=True)
        drawn.clamp_(max=len(unit) - 1)
        nearer = torch.minimum(distance.unsqueeze(1), _squares(unit, drawn))  # (N, draws)
        best = nearer.sum(0).argmin()
        distance = nearer[:, best].contiguous()
        chosen = torch.cat([chosen, drawn[best : best + 1]])
    return unit[chosen]


def _squares(unit: Tensor, chosen: Tensor) -> Tensor:
    """(N, chosen): squared distances; 0 from a vector to itself whatever the rounding."""
    found = (2 - 2 * (unit @ unit[chosen].T)).clamp(min=0)
    found[chosen, torch.arange(len(chosen))] = 0
    return found


def _lloyd(unit: Tensor, centres: Tensor, iterations: int) -> tuple[Tensor, float]:
    labels, cosine = nearest(unit, centres)
    for _ in range(iterations):
        counts = torch.bincount(labels, minlength=len(centres))
        empty = (counts == 0).nonzero().flatten()
        if len(empty):  # empty clusters take the vectors that fit worst
            worst = cosine.argsort(stable=True)[: len(empty)]
            labels[worst] = empty
        sums = torch.zeros_like(centres).index_add_(0, labels, unit)
        before = labels
        labels, cosine = nearest(unit, F.normalize(sums))
        if torch.equal(labels, before):
            break
    return labels, float(cosine.double().mean())


def nearest(unit: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of each, and the cosine."""
    found = [(part @ centres.T).max(1) for part in unit.split(max(1, BLOCK // len(centres)))]
    return torch.cat([each.indices for each in found]), torch.cat([each.values for each in found])


def agglomerate(vectors: Tensor, clusters: int, cells: Tensor | None = None) -> Tensor:
    """(N, D) -> cluster of each. The two clusters with the highest mean cosine between members are joined, again and again.

    With `cells` (N,) whole cells are joined, and no cell is split. Time grows with the square of the number of cells.
    """
    unit = F.normalize(vectors).numpy()
    cells = torch.arange(len(unit)) if cells is None else cells
    _, owner, counts = np.unique(cells.numpy(), return_inverse=True, return_counts=True)
    order = np.argsort(owner, kind="stable")
    means = np.add.reduceat(unit[order], np.cumsum(counts) - counts, axis=0, dtype=np.float64)
    means = (means / counts[:, None]).astype(np.float32)
    joins = sorted(_joins(means, counts.astype(np.float64)), key=lambda join: -join[0])
    parent = list(range(len(counts)))

    def root(cell: int) -> int:
        while parent[cell] != cell:
            parent[cell] = cell = parent[parent[cell]]
        return cell

    for _, one, other in joins[: len(counts) - clusters]:
        parent[root(one)] = root(other)
    roots = np.array([root(cell) for cell in range(len(counts))])
    return torch.from_numpy(np.unique(roots[owner], return_inverse=True)[1])


def _joins(means: np.ndarray, counts: np.ndarray) -> list[tuple[float, int, int]]:
    """All joins with their cosines, by a chain of nearest neighbours. For unit vectors, the mean cosine between the members
    of two clusters is the product of the clusters' means. So no matrix of cosines is needed."""
    names = np.arange(len(means))  # a cell of each cluster that is left
    joins: list[tuple[float, int, int]] = []
    chain: list[int] = []
    gone = np.zeros(len(means), bool)
    for left in range(len(means), 1, -1):
        if 2 * left < len(means):
            chain = (np.cumsum(~gone) - 1)[chain].tolist()
            means, counts, names, gone = means[~gone], counts[~gone], names[~gone], gone[~gone]
        one, other, cosine = _nearest_pair(means, gone, chain)
        joins.append((cosine, int(names[one]), int(names[other])))
        total = counts[one] + counts[other]
        means[other] = (counts[one] * means[one] + counts[other] * means[other]) / total
        counts[other] = total
        gone[one] = True
    return joins


def _nearest_pair(means: np.ndarray, gone: np.ndarray, chain: list[int]) -> tuple[int, int, float]:
    """Goes from cluster to nearest cluster until two are each other's nearest. Takes these off the chain."""
    if not chain:
        chain.append(int(np.flatnonzero(~gone)[0]))
    while True:
        top = chain[-1]
        cosines = means @ means[top]
        cosines[gone] = -np.inf
        cosines[top] = -np.inf
        best = int(cosines.argmax())
        if len(chain) > 1 and cosines[best] <= cosines[chain[-2]] + SAME:
            chain.pop()
            other = chain.pop()
            return top, other, float(cosines[other])
        chain.append(best)


def purity(labels: np.ndarray, truth: np.ndarray) -> float:
    """The share of vectors that have the most frequent true label of their cluster."""
    return float(_table(labels, truth).max(1).sum() / len(truth))


def mutual_information(labels: np.ndarray, truth: np.ndarray) -> float:
    """Normalised by the mean of the two entropies: 1 if the partitions are the same, 0 if they are independent."""
    joint = _table(labels, truth) / len(truth)
    rows, columns = joint.sum(1), joint.sum(0)
    where = np.nonzero(joint)
    shared = (joint[where] * np.log(joint[where] / (rows[where[0]] * columns[where[1]]))).sum()
    entropies = -sum((each * np.log(each)).sum() for each in (rows, columns))
    return float(2 * shared / entropies) if entropies > 0 else 1.0


def _table(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(clusters, true labels): how many vectors have both."""
    rows, columns = (np.unique(each, return_inverse=True)[1] for each in (labels, truth))
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    counts = np.bincount(rows.astype(np.int64) * shape[1] + columns, minlength=shape[0] * shape[1])
    return counts.reshape(shape).astype(np.float64)
