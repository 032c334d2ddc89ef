"""Content: films like those you have watched (thesis section 3.5.1 and annex A.1)."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.preprocessing import normalize

from nbrec.models.baselines import history_matrix


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
        self.vectors, self.last_n = normalize(vectors), last_n

    def users(self, histories: list[np.ndarray]) -> np.ndarray | sparse.csr_array:
        """v_u: float32 (B, d), sparse if the vectors are."""
        h = history_matrix(histories, self.vectors.shape[0], self.last_n)
        return (normalize(h, "l1") if len(histories) else h) @ self.vectors

    def score(self, histories: list[np.ndarray]) -> np.ndarray:
        """float32 (B, V), in [-1, 1]; ``history_matrix`` says what a history may be."""
        users = self.users(histories)
        scores = (normalize(users) if len(histories) else users) @ self.vectors.T
        return scores.toarray() if sparse.issparse(scores) else scores
