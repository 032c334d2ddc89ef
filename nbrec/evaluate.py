"""Scores to ranks: every model, classical or neural, is evaluated by this one function."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from nbrec import checks
from nbrec.metrics import target_ranks
from nbrec.sequences import Sequences


@dataclass(frozen=True)
class Evaluation:
    """What is kept of a model's scores.

    Args:
        ranks: int64 (U,), rank of each test user's target, 1 is best.
        ranks_with_seen: int64 (U,), the same among all items, those of the history included.
        recommended: int32 (U, top_k), the best items of each user, best first.
        seconds: time spent in ``score`` alone, without ranking.
    """

    ranks: np.ndarray
    ranks_with_seen: np.ndarray
    recommended: np.ndarray
    seconds: float


def evaluate(model, test: Sequences, mask_seen: bool = True, top_k: int = 20,
             batch_size: int = 256) -> Evaluation:
    """Rank each test user's last item given the items before it (thesis section 4.2).

    Works in batches: memory does not grow with the number of users.

    Args:
        model: has ``score(histories) -> (B, V)``, higher is better.
        test: sequences of at least two items.
        mask_seen: leave items of the history out of the ranking; one rule for every model.
        top_k: how many recommended items to keep per user.
        batch_size: users per call of ``score``.

    Raises:
        ValueError: there is no test sequence, one has fewer than two items, the model's scores
            have the wrong shape, or top_k or batch_size is below 1.
    """
    checks.whole("top_k", top_k, low=1)
    checks.whole("batch_size", batch_size, low=1)
    if not len(test):
        raise ValueError("there is no test sequence: expected one or more")
    if test.lengths.min() < 2:
        raise ValueError("a test sequence has fewer than two items: no history or no target")
    histories, targets = test.histories(), test.targets()
    ranks, ranks_with_seen, recommended, seconds = [], [], [], 0.0
    for start in range(0, len(test), batch_size):
        batch = histories[start : start + batch_size]
        began = time.perf_counter()
        scores = np.asarray(model.score(batch))
        seconds += time.perf_counter() - began
        if scores.shape != (len(batch), test.n_items):
            raise ValueError(
                f"{type(model).__name__}.score gave {scores.shape}: expected "
                f"{(len(batch), test.n_items)}, one row per history and one column per item"
            )
        seen = batch if mask_seen else None
        wanted = targets[start : start + batch_size]
        ranks_with_seen.append(target_ranks(scores, wanted))
        ranks.append(target_ranks(scores, wanted, seen) if mask_seen else ranks_with_seen[-1])
        recommended.append(top_items(scores, top_k, seen))
    return Evaluation(np.concatenate(ranks), np.concatenate(ranks_with_seen),
                      np.concatenate(recommended), seconds)


def top_items(scores: np.ndarray, k: int, seen: list[np.ndarray] | None = None) -> np.ndarray:
    """The k best items of each row, best first.

    Args:
        scores: float (B, V).
        k: how many, at least 1; all V items if it is more.
        seen: for each row the items that are not recommended; they come last where fewer than k
            others exist.

    Returns:
        int32 (B, min(k, V)).

    Raises:
        ValueError: k is below 1, the shapes do not fit, or a seen item is no catalogue index.
    """
    checks.whole("k", k, low=1)
    scores = np.array(scores, dtype=np.float32)
    scores[np.isnan(scores)] = -np.finfo(np.float32).max  # last, but ahead of what was seen
    if scores.ndim != 2:
        raise ValueError(f"scores {scores.shape}: expected (B, V), one row a history")
    if seen is not None:
        items, offsets = checks.histories(seen, scores.shape[1], empty=True)
        if len(offsets) != len(scores) + 1:
            raise ValueError(f"{len(offsets) - 1} arrays of seen items for {len(scores)} rows of "
                             "scores: expected one a row")
        scores[np.repeat(np.arange(len(scores)), np.diff(offsets)), items] = -np.inf
    k = min(k, scores.shape[1])
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1).astype(np.int32)
