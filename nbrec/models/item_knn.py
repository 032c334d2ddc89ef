"""Item-KNN: what people who watched your films also watched (thesis section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nbrec import checks
from nbrec.models.recommender import Recommender
from nbrec.models.sparse import history_matrix, interactions, product

if TYPE_CHECKING:
    from scipy import sparse

    from nbrec.sequences import Sequences


class ItemKNN(Recommender):
    """Nearest neighbours among items by cosine similarity (thesis Method 3.1; Sarwar et al., 2001).

    M is the user-item matrix of zeros and ones, c_i its column of item i:

        S_ij = c_i . c_j / (|c_i| |c_j|)            (thesis eq. 3.1)
        score_j = sum of S_ij over the items i of the history

    With shrinkage h the denominator is |c_i| |c_j| + h, so that a similarity which few users vouch
    for counts less (Ferrari Dacrema et al., 2019); the thesis has none.

    Everything stays sparse: S is made as one product of two sparse matrices.

    Args:
        last_n: use only the last n items of a history; None uses all.
        neighbours: keep only the k largest similarities of each item (itself apart); None keeps
            all, as the thesis does.
        shrinkage: h, in users, 0 or more.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, last_n: int | None = None, neighbours: int | None = None,
                 shrinkage: float = 0.0):
        checks.whole("last_n", last_n, low=1, none=True)
        checks.whole("neighbours", neighbours, low=1, none=True)
        checks.number("shrinkage", shrinkage, low=0)
        self.last_n = last_n
        self.neighbours = neighbours
        self.shrinkage = shrinkage

    def fit(self, train: Sequences, validation: Sequences | None = None) -> ItemKNN:
        """Compute the similarities S, float32 sparse (V, V), from the training sequences."""
        m = interactions(train)
        norms = np.sqrt(np.bincount(m.indices, minlength=train.n_items)).astype(np.float32)
        m.data /= norms[m.indices]  # columns of length 1: S = M'M
        self.similarities = s = product(m.T.tocsr(), m)
        if self.shrinkage:
            both = norms[np.repeat(np.arange(len(norms)), np.diff(s.indptr))] * norms[s.indices]
            s.data *= both / (both + np.float32(self.shrinkage))
        if self.neighbours is not None:
            self.similarities = _largest(self.similarities, self.neighbours)
        self.remember(train)
        return self

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (B, V): summed similarities to the items of each history.

        The items of the history score too; whoever ranks leaves them out. ``history_matrix`` says
        what a history may be.
        """
        s = self.fitted().similarities
        # S is symmetric, so the sum of columns of Method 3.1 is a sum of rows.
        return product(history_matrix(histories, s.shape[0], self.last_n), s, dense=True)

    def contributions(self, history: np.ndarray, item: int) -> np.ndarray:
        """What each item of a history adds to the score of an item: ``score`` is their sum.

        Args:
            history: int (L,), catalogue indices, oldest first.
            item: a catalogue index.

        Returns:
            float32 (L,). An item that stands several times counts once, at its last place; one
            that is older than the ``last_n`` last items adds 0.
        """
        s = self.fitted().similarities
        used = history_matrix([history], s.shape[0], self.last_n).indices
        checks.indices(item, s.shape[1])
        history = np.asarray(history)
        last = len(history) - 1 - np.unique(history[::-1], return_index=True)[1]
        counted = np.isin(np.arange(len(history)), last) & np.isin(history, used)
        return np.where(counted, s[:, [item]].toarray()[history, 0], 0).astype(np.float32)


def _largest(s: sparse.csr_array, k: int) -> sparse.csr_array:
    """Keep each column's k largest similarities to other items, and the diagonal.

    Column j holds what item j's score is made of, so the cut says who may vote for j.
    """
    s = s.T.tocsr()
    rows = np.repeat(np.arange(s.shape[0]), np.diff(s.indptr))
    own = rows == s.indices
    value = np.where(own, np.inf, s.data)
    order = np.lexsort((s.indices, -value, rows))
    place = np.arange(len(rows)) - s.indptr[rows]  # position within the row, largest first
    keep = np.zeros(len(rows), dtype=bool)
    keep[order] = place <= k
    s.data[~keep] = 0.0
    s.eliminate_zeros()
    return s.T.tocsr()
