"""Three cheap yardsticks: popularity, a first-order Markov chain, and EASE."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from nbrec import checks
from nbrec.sequences import Sequences


class Popularity:
    """Recommends to everybody what most training users have seen: score_i = count_i."""

    def fit(self, train: Sequences, validation: Sequences | None = None) -> Popularity:
        """Count the training sequences that contain each item."""
        self.counts = np.asarray(interactions(train).sum(axis=0)).ravel().astype(np.float32)
        return self

    def score(self, histories: list[np.ndarray]) -> np.ndarray:
        """float32 (B, V): the same row for every history, checked as by ``history_matrix``."""
        counts = fitted(self, "counts")
        checks.histories(histories, len(counts))
        return np.tile(counts, (len(histories), 1))


class MarkovChain:
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
        return self

    def score(self, histories: list[np.ndarray]) -> np.ndarray:
        """float32 (B, V): the probabilities that follow each history's last item.

        ``history_matrix`` says what a history may be.
        """
        items, offsets = checks.histories(histories, fitted(self, "counts").shape[0])
        last = items[offsets[1:] - 1]
        smoothed = self.counts[last].toarray() + self.smoothing * self.shares
        return smoothed / (self.totals[last, None] + self.smoothing).astype(np.float32)


class EASE:
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
        return self

    def score(self, histories: list[np.ndarray]) -> np.ndarray:
        """float32 (B, V); ``history_matrix`` says what a history may be."""
        return history_matrix(histories, len(fitted(self, "weights"))) @ self.weights


def interactions(sequences: Sequences) -> sparse.csr_array:
    """The interaction matrix M of thesis section 3.1: float32 (U, V), 1 where user u has item i."""
    return _binary(sequences.items, sequences.offsets, sequences.n_items)


def history_matrix(histories: list[np.ndarray], n_items: int, last_n: int | None = None,
                   empty: bool = False) -> sparse.csr_array:
    """float32 (B, V): 1 where the history contains the item.

    Args:
        histories: int (L,) each, L >= 1, catalogue indices in 0..V-1, oldest first.
        n_items: size V of the catalogue.
        last_n: use only the last n items of a history; None uses all.
        empty: whether L may be 0. For whoever scores it may not: nothing follows from nothing.

    Raises:
        ValueError: a history is empty, or holds anything but catalogue indices.
    """
    items, offsets = checks.histories(histories, n_items, empty)
    if last_n is not None:
        late = np.arange(len(items)) >= np.repeat(offsets[1:] - last_n, np.diff(offsets))
        items = items[late]
        offsets = np.concatenate(([0], np.cumsum(np.minimum(np.diff(offsets), last_n))))
    return _binary(items, offsets, n_items)


def fitted(model: Any, name: str) -> Any:
    """What ``fit`` has made.

    Raises:
        RuntimeError: before ``fit``.
    """
    if not hasattr(model, name):
        raise RuntimeError("this model has not been trained: call fit first")
    return getattr(model, name)


def _binary(items: np.ndarray, offsets: np.ndarray, n_items: int) -> sparse.csr_array:
    matrix = sparse.csr_array(
        (np.ones(len(items), np.float32), items.astype(np.int32), offsets.astype(np.int32)),
        shape=(len(offsets) - 1, n_items),
    )
    matrix.sum_duplicates()  # an item seen twice counts once
    matrix.data[:] = 1.0
    return matrix
