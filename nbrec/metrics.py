"""How good a ranking is, and how personal (thesis section 4.2).

There is one relevant item per user, the next film. So every accuracy metric is a function of its
rank alone, and a model's whole evaluation is an array of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wasserstein_distance

from nbrec import checks
from nbrec.sequences import Sequences

KS = (1, 20, 100, 300)
NEVER = np.iinfo(np.int64).max  # the rank of a target whose score is not a number

# Stars of personalisation: how many decades of popularity lie, on average, between what a model
# recommends and what its users watch (Wasserstein-1 distance of log10 popularity).
STARS = ((0.25, 3), (0.5, 2), (float("inf"), 1))


def target_ranks(
    scores: np.ndarray, targets: np.ndarray, seen: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """The rank of each user's target among all items that may be recommended.

    Ties are broken against the model: an item that scores as high as the target stands ahead of
    it, so a model that scores everything alike never hits. So does an item whose score is NaN. A
    target whose own score is NaN gets the rank ``NEVER``.

    Args:
        scores: float (B, V), higher is better.
        targets: int (B,), catalogue indices in 0..V-1.
        seen: for each user the items that are not recommended again; the target itself is never
            left out. None ranks the whole catalogue.

    Returns:
        int64 (B,), 1 is best.

    Raises:
        ValueError: the shapes do not fit, or a target or a seen item is no catalogue index.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.dtype.kind not in "fiu":
        raise ValueError(f"scores of type {scores.dtype}: expected numbers, float (B, V)")
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise ValueError(
            f"scores {scores.shape} and targets {targets.shape}: expected (B, V) and (B,)"
        )
    targets = checks.indices(targets, scores.shape[1])
    rows = np.arange(len(targets))
    target_scores = scores[rows, targets]
    ahead = ~(scores < target_scores[:, None])  # true for NaN on either side
    if seen is not None:
        items, offsets = checks.histories(seen, scores.shape[1], empty=True)
        if len(offsets) != len(targets) + 1:
            raise ValueError(f"{len(offsets) - 1} arrays of seen items for {len(targets)} users: "
                             "expected one a user")
        ahead[np.repeat(rows, np.diff(offsets)), items] = False
    ahead[rows, targets] = True
    ranks = ahead.sum(axis=1, dtype=np.int64)
    ranks[np.isnan(target_scores)] = NEVER
    return ranks


def hits(ranks: np.ndarray, k: int) -> np.ndarray:
    """float64 (U,): 1 where the target is among the k best, else 0."""
    return (_ranks(ranks, k) <= k).astype(np.float64)


def reciprocal_ranks(ranks: np.ndarray, k: int) -> np.ndarray:
    """float64 (U,): 1 / rank where the target is among the k best, else 0."""
    ranks = _ranks(ranks, k)
    return np.where(ranks <= k, 1.0 / ranks, 0.0)


def discounted_gains(ranks: np.ndarray, k: int) -> np.ndarray:
    """float64 (U,): 1 / log2(rank + 1) where the target is among the k best, else 0."""
    ranks = _ranks(ranks, k)
    return np.where(ranks <= k, 1.0 / np.log2(ranks.astype(np.float64) + 1.0), 0.0)


def hit_rate(ranks: np.ndarray, k: int) -> float:
    """HR@k: the share of users whose target is among the k best (thesis eq. 4.1), in 0..1."""
    return float(hits(ranks, k).mean())


def mrr(ranks: np.ndarray, k: int) -> float:
    """MRR@k: the mean of 1 / rank, 0 beyond k (thesis eq. 4.2), in 0..1."""
    return float(reciprocal_ranks(ranks, k).mean())


def ndcg(ranks: np.ndarray, k: int) -> float:
    """NDCG@k with one relevant item: the mean of 1 / log2(rank + 1), 0 beyond k.

    Thesis eq. 4.3 to 4.5; Jarvelin and Kekalainen (2002). The ideal gain is 1, at rank 1.
    """
    return float(discounted_gains(ranks, k).mean())


@dataclass(frozen=True)
class Metric:
    """A measure of accuracy.

    Args:
        label: as tables and figures write it.
        per_user: (ranks int64 (U,), k) -> float64 (U,), what each user's rank is worth.
        cutoffs: the k that are reported.
    """

    label: str
    per_user: Callable[[np.ndarray, int], np.ndarray]
    cutoffs: tuple[int, ...] = KS


# All that is needed for another metric is a line here: evaluation, records (those that exist, too:
# they hold ranks), summaries, tests of significance and figures go through this table.
METRICS: dict[str, Metric] = {
    "hr": Metric("HR", hits),
    "mrr": Metric("MRR", reciprocal_ranks),
    "ndcg": Metric("NDCG", discounted_gains),
}


def names() -> list[str]:
    """All metrics with their cut-offs: "hr@1", "hr@20", .."""
    return [f"{name}@{k}" for name, metric in METRICS.items() for k in metric.cutoffs]


def parse(name: str) -> tuple[Metric, int]:
    """What "hr@20" means.

    Raises:
        ValueError: there is no such metric, or its cut-off is no whole number above 0.
    """
    kind, at, k = name.partition("@")
    if kind not in METRICS or not at or not k.isdecimal() or not int(k):
        raise ValueError(f"metric {name!r}: expected one of {', '.join(METRICS)}, '@' and a whole "
                         "number above 0, such as 'hr@20'")
    return METRICS[kind], int(k)


def per_user(name: str, ranks: np.ndarray) -> np.ndarray:
    """float64 (U,): what a metric such as "hr@20" gives each user; ``parse`` says what it raises.

    Args:
        ranks: int (U,), 1 is best.

    Raises:
        ValueError: the metric gives anything but a finite number for each user.
    """
    metric, k = parse(name)
    ranks = np.asarray(ranks)
    values = np.asarray(metric.per_user(ranks, k), np.float64)
    if values.shape != ranks.shape or not np.isfinite(values).all():
        raise ValueError(f"metric {name!r} gives {values.shape}, "
                         f"{int((~np.isfinite(values)).sum())} of them not finite, for ranks of "
                         f"shape {ranks.shape}: expected a finite number for each user")
    return values


def mean(name: str, ranks: np.ndarray) -> float:
    """The mean of ``per_user``: what a record holds."""
    return float(per_user(name, ranks).mean())


def popularity(train: Sequences) -> np.ndarray:
    """float64 (V,): the share of the training sequences that contain each item, per mille.

    Raises:
        ValueError: there is no sequence.
    """
    if not len(train):
        raise ValueError("there is no training sequence: expected one or more")
    user = np.repeat(np.arange(len(train)), train.lengths)
    once = np.unique(user * train.n_items + train.items) % train.n_items
    return 1000.0 * np.bincount(once, minlength=train.n_items) / len(train)


def personalisation(
    popularity: np.ndarray, recommended: np.ndarray, behaviour: np.ndarray, floor: float
) -> dict[str, float]:
    """How far the popularity of what is recommended lies from that of what users watch.

    Thesis section 4.2 judges this by eye from two density curves; here it is a number first.

    Args:
        popularity: float (V,), per mille, of the training part.
        recommended: int (U, K), the items recommended to each test user.
        behaviour: int (M,), the items that the test users watched.
        floor: per mille, stands in for an item that no training sequence contains, whose
            logarithm would not exist; half of one sequence is a natural choice.

    Returns:
        mean_popularity and behaviour_popularity (per mille), wasserstein (decades: Wasserstein-1
        distance of the two distributions of log10 popularity), coverage (share of the catalogue
        that is recommended at least once), gini (0: all items are recommended equally often, 1:
        one item only), stars (3, 2 or 1 by the thresholds ``STARS``).

    Raises:
        ValueError: nothing was recommended or watched, an item is no catalogue index, or floor is
            not above 0.
    """
    checks.number("floor", floor, above=0)
    popularity = np.asarray(popularity, dtype=np.float64)
    if not np.isfinite(popularity).all() or (popularity < 0).any():
        raise ValueError("the popularity of an item is negative or not finite: expected per mille")
    flat = checks.indices(np.ravel(recommended), len(popularity))
    behaviour = checks.indices(behaviour, len(popularity))
    if not len(flat) or not len(behaviour):
        raise ValueError(f"{len(flat)} recommended and {len(behaviour)} watched items: expected "
                         "one or more of each")
    logs = np.log10(np.maximum(popularity, floor))
    distance = float(wasserstein_distance(logs[flat], logs[behaviour]))
    times = np.sort(np.bincount(flat, minlength=len(popularity)))
    n = len(times)
    gini = float((2 * np.arange(1, n + 1) - n - 1) @ times / (n * times.sum()))
    return {
        "mean_popularity": float(popularity[flat].mean()),
        "behaviour_popularity": float(popularity[behaviour].mean()),
        "wasserstein": distance,
        "coverage": float((times > 0).mean()),
        "gini": gini,
        "stars": next(stars for limit, stars in STARS if distance <= limit),
    }


def _ranks(ranks: np.ndarray, k: int) -> np.ndarray:
    ranks = np.asarray(ranks)
    checks.whole("k", k, low=1)
    whole = ranks.dtype.kind in "iu" or (
        ranks.dtype.kind == "f" and np.isfinite(ranks).all() and (ranks == np.rint(ranks)).all())
    if ranks.ndim != 1 or not len(ranks) or not whole or ranks.min() < 1:
        raise ValueError(f"ranks of shape {ranks.shape} and type {ranks.dtype}: expected one "
                         "dimension of ranks, whole numbers of 1 or more")
    return ranks
