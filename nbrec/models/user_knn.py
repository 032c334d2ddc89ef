"""User-KNN: what people with a history like yours watched (thesis section 3.1 and annex A.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nbrec import checks
from nbrec.models.recommender import Recommender
from nbrec.models.sparse import history_matrix, interactions, product

if TYPE_CHECKING:
    from nbrec.sequences import Sequences


class UserKNN(Recommender):
    """Nearest neighbours among the training users by cosine similarity.

    With h the history of a user and m_v the row of training user v, both of zeros and ones:

        w_v = h . m_v / (|h| |m_v|)
        score_j = sum of w_v M_vj over the k users v with the largest w_v

    With shrinkage the denominator is |h| |m_v| + shrinkage, so that users of few films count less.

    Args:
        neighbours: k; of equal similarities those of users who come first count.
        shrinkage: in films, 0 or more.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, neighbours: int = 50, shrinkage: float = 0.0):
        checks.whole("neighbours", neighbours, low=1)
        checks.number("shrinkage", shrinkage, low=0)
        self.neighbours, self.shrinkage = neighbours, shrinkage

    def fit(self, train: Sequences, validation: Sequences | None = None) -> UserKNN:
        """Keep M: nothing is computed before somebody asks."""
        self.matrix = interactions(train)
        self.norms = np.sqrt(np.diff(self.matrix.indptr)).astype(np.float32)
        self.remember(train)
        return self

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (B, V). A user of the training part is a neighbour of their own history.

        ``history_matrix`` says what a history may be.
        """
        h = history_matrix(histories, self.fitted().matrix.shape[1])
        w = product(h, self.matrix.T.tocsr())
        w.data /= self.norms[w.indices]
        rows = np.repeat(np.arange(w.shape[0]), np.diff(w.indptr))
        lengths = np.sqrt(np.diff(h.indptr)).astype(np.float32)[rows]
        w.data /= lengths
        if self.shrinkage:
            both = lengths * self.norms[w.indices]
            w.data *= both / (both + np.float32(self.shrinkage))
        order = np.lexsort((w.indices, -w.data, rows))
        place = np.arange(len(rows)) - w.indptr[rows]  # within the row, most similar first
        w.data[order[place >= self.neighbours]] = 0.0
        w.eliminate_zeros()
        return product(w, self.matrix, dense=True)
