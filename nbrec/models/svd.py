"""SVD: users and items in a space of a few dimensions (thesis section 3.1 and annex A.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nbrec import checks
from nbrec.models.recommender import Recommender
from nbrec.models.sparse import history_matrix, interactions

if TYPE_CHECKING:
    from nbrec.sequences import Sequences


class SVD(Recommender):
    """Truncated singular value decomposition of the user-item matrix (Cremonesi et al., 2010).

    M ~ U S V' with the d largest singular values is the best approximation of M of that rank. A
    user outside M is folded in: V'h is their place in the space, and what the approximation would
    hold for them is

        score = h V V'

    Args:
        rank: d.
        seed: of the vector that the iteration starts from.

    Raises:
        ValueError: rank is below 1, or, when fitting, not below both sides of M.
    """

    def __init__(self, rank: int = 50, seed: int = 0):
        checks.whole("rank", rank, low=1)
        checks.whole("seed", seed)
        self.rank, self.seed = rank, seed

    def fit(self, train: Sequences, validation: Sequences | None = None) -> SVD:
        """Find V, float32 (V, d)."""
        from scipy.sparse.linalg import svds

        m = interactions(train)
        if self.rank >= min(m.shape):
            raise ValueError(f"rank={self.rank}: expected less than {min(m.shape)}, the smaller "
                             f"side of {m.shape[0]} users and {m.shape[1]} items")
        start = np.random.default_rng(self.seed).standard_normal(min(m.shape))
        _, _, vt = svds(m.astype(np.float64), self.rank, v0=start)
        self.items = np.ascontiguousarray(vt.T, dtype=np.float32)
        self.remember(train)
        return self

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (B, V); ``history_matrix`` says what a history may be."""
        items = self.fitted().items
        return history_matrix(histories, len(items)) @ items @ items.T
