"""Three cheap yardsticks: popularity, a first-order Markov chain, and EASE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nbrec import checks
from nbrec.models.recommender import Recommender
from nbrec.models.sparse import history_matrix, interactions

if TYPE_CHECKING:
    from nbrec.sequences import Sequences


class Popularity(Recommender):
    """Recommends to everybody what most training users have seen: score_i = count_i."""

    def fit(self, train: Sequences, validation: Sequences | None = None) -> Popularity:
        """Count the training sequences that contain each item."""
        self.counts = np.asarray(interactions(train).sum(axis=0)).ravel().astype(np.float32)
        self.remember(train)
        return self

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (B, V): the same row for every history, checked as by ``history_matrix``."""
        counts = self.fitted().counts
        checks.histories(histories, len(counts))
        return np.tile(counts, (len(histories), 1))


class MarkovChain(Recommender):
    """The next item given the last one: P(j | i) = (c_ij + a p_j) / (c_i + a).

    c_ij counts how often j came right after i, c_i is its sum over j, and p_j is the share of j
    among all items: rare items lean on popularity.

    Args:
        smoothing: a > 0, how many imaginary observations the popularity counts for.
    """

    def __init__(self, smoothing: float = 10.0):
        checks.number("smoothing", smoothing, above=0)
        self.smoothing = smoothing

    def fit(self, train: Sequences, validation: Sequences | None = None) -> MarkovChain:
        """Count the pairs of neighbouring items.

        Raises:
            ValueError: there is no sequence.
        """
        if not len(train):
            raise ValueError("there is no training sequence: expected one or more")
        from scipy import sparse

        n = train.n_items
        last = np.ones(len(train.items), dtype=bool)
        last[train.offsets[1:] - 1] = False  # the last item of a user has no successor
        source = train.items[last]
        target = train.items[np.flatnonzero(last) + 1]
        self.counts = sparse.csr_array(
            (np.ones(len(source), np.float32), (source, target)), shape=(n, n)
        )
        self.totals = np.asarray(self.counts.sum(axis=1)).ravel()
        self.shares = (np.bincount(train.items, minlength=n) / len(train.items)).astype(np.float32)
        self.remember(train)
        return self

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (B, V): the probabilities that follow each history's last item.

        ``history_matrix`` says what a history may be.
        """
        items, offsets = checks.histories(histories, self.fitted().counts.shape[0])
        last = items[offsets[1:] - 1]
        smoothed = self.counts[last].toarray() + self.smoothing * self.shares
        return smoothed / (self.totals[last, None] + self.smoothing).astype(np.float32)


class EASE(Recommender):
    """Embarrassingly shallow autoencoder (Steck, 2019).

    Minimises ||X - X B||^2 + l2 ||B||^2 with diag(B) = 0. With P = (X'X + l2 I)^-1 the solution is
    B_ij = -P_ij / P_jj off the diagonal. The score of a history is the sum of its rows of B.

    Args:
        l2: the ridge penalty, > 0.
    """

    def __init__(self, l2: float = 250.0):
        checks.number("l2", l2, above=0)
        self.l2 = l2

    def fit(self, train: Sequences, validation: Sequences | None = None) -> EASE:
        """Invert the regularised item-item matrix: O(V^3) time, O(V^2) memory."""
        x = interactions(train)
        gram = (x.T @ x).toarray()
        gram[np.diag_indices_from(gram)] += self.l2
        precision = np.linalg.inv(gram)
        self.weights = -precision / np.diag(precision)
        self.weights[np.diag_indices_from(self.weights)] = 0.0
        self.remember(train)
        return self

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (B, V); ``history_matrix`` says what a history may be."""
        return history_matrix(histories, len(self.fitted().weights)) @ self.weights
