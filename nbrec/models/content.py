"""Content: films like those you have watched (thesis section 3.5.1 and annex A.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nbrec.models.sparse import history_matrix

if TYPE_CHECKING:
    from scipy import sparse


class Content:
    """Cosine between what a film is about and what the history is about.

        v_u = mean over the history of v_i / |v_i|
        score_j = cos(v_u, v_j)                     (thesis eq. 3.1)

    Args:
        vectors: float32 (V, d), sparse (TF-IDF) or dense (an encoder's); a row of zeros stands for
            a film of which nothing is known, and scores 0.
        last_n: use only the last n items of a history; None uses all, as the thesis does.
    """

    def __init__(self, vectors: np.ndarray | sparse.csr_array, last_n: int | None = None):
        self.vectors, self.last_n = _unit(vectors), last_n

    def users(self, histories: Sequence[np.ndarray]) -> np.ndarray | sparse.csr_array:
        """v_u: float32 (B, d), sparse if the vectors are."""
        h = history_matrix(histories, self.vectors.shape[0], self.last_n)
        return (_unit(h, "l1") if len(histories) else h) @ self.vectors

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (B, V), in [-1, 1]; ``history_matrix`` says what a history may be."""
        users = self.users(histories)
        scores = (_unit(users) if len(histories) else users) @ self.vectors.T
        return scores if isinstance(scores, np.ndarray) else scores.toarray()


def _unit(rows: np.ndarray | sparse.csr_array, norm: str = "l2") -> np.ndarray | sparse.csr_array:
    """Rows of length 1, or that sum to 1; those of zeros stay."""
    from sklearn.preprocessing import normalize  # here: no other architecture needs it

    return normalize(rows, norm)
