"""Films by what is written about them, behind the interface of all recommenders."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from nbrec import checks
from nbrec.data import encoders, text
from nbrec.models.content import Content
from nbrec.models.recommender import Recommender
from nbrec.sequences import Sequences


class ContentRecommender(Recommender):
    """Films with a document like those of the history; see ``models.content.Content``.

    Args:
        documents: text of each film by movieId, as ``text.documents`` gives it.
        last_n: score with the last n items of a history only; None uses all, as the thesis does.
    """

    def __init__(self, documents: pd.Series, last_n: int | None = None):
        checks.whole("last_n", last_n, low=1, none=True)
        if not isinstance(documents, pd.Series):
            raise ValueError(f"documents={type(documents).__name__}: expected the documents of the "
                             "films as text.documents makes them, a text of each film by movieId")
        self.documents, self.last_n = documents, last_n

    def describe(self) -> dict[str, Any]:
        """All settings, with a sha256 of the documents in their place."""
        digest = hashlib.sha256()
        for movie, document in self.documents.items():
            digest.update(f"{movie}\t{document}\n".encode())
        own = super().describe() | self._kind() | {"documents_sha256": digest.hexdigest()}
        return {name: value for name, value in own.items() if name != "documents"}

    def fit(self, train: Sequences, validation: Sequences | None = None) -> Self:
        """Read the documents of the catalogue; the interactions play no part."""
        vectors, self.seconds = self._read(self.documents.reindex(train.catalogue).fillna(""))
        self.keep(vectors)
        self.remember(train)
        return self

    def keep(self, vectors: np.ndarray) -> Self:
        """Take vectors as if they had just been read: (V, d), sparse or dense."""
        self.vectors, self.model = vectors, Content(vectors, self.last_n)
        self.frozen: torch.Tensor | None = None
        return self

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (B, V): cosines; ``history_matrix`` says what a history may be."""
        return self.fitted().model.score(histories)

    def item_vectors(self) -> torch.Tensor:
        """float32 (V, d): the frozen vectors for an early fusion."""
        frozen = self.fitted().frozen
        if frozen is None:
            self.frozen = frozen = torch.from_numpy(np.ascontiguousarray(self._dense()))
        return frozen

    def user_vectors(self, histories: Sequence[np.ndarray], fold_in: bool = True) -> torch.Tensor:
        """float32 (B, d): the mean vector of each history, for a late fusion."""
        return torch.from_numpy(Content(self.item_vectors().numpy()).users(histories))

    def _kind(self) -> dict[str, Any]:
        """What ``describe`` says of the reader."""
        raise NotImplementedError

    def _read(self, documents: pd.Series) -> tuple[Any, float]:
        """(V, d) vectors of the documents, sparse or dense, and the seconds that they took."""
        raise NotImplementedError

    def _dense(self) -> np.ndarray:
        """float32 (V, d)."""
        return self.vectors


class TFIDF(ContentRecommender):
    """Words, weighed by how rare they are.

    Args:
        dimensions: width of the item vectors for a hybrid; scores use all words.
    """

    def __init__(self, documents: pd.Series, dimensions: int = 256, last_n: int | None = None):
        checks.whole("dimensions", dimensions, low=1)
        super().__init__(documents, last_n)
        self.dimensions = dimensions

    def _kind(self) -> dict[str, Any]:
        return {"encoder": "tfidf"}

    def _read(self, documents: pd.Series) -> tuple[Any, float]:
        began = time.perf_counter()
        return text.tfidf(documents), time.perf_counter() - began

    def _dense(self) -> np.ndarray:
        return text.latent(self.vectors, self.dimensions)


class Encoded(ContentRecommender):
    """Sentences, read by a language model.

    Args:
        encoder: a key of ``encoders.ENCODERS``.
    """

    def __init__(self, encoder: str, documents: pd.Series, last_n: int | None = None):
        super().__init__(documents, last_n)
        self.encoder = encoder

    def _kind(self) -> dict[str, Any]:
        return {"repository": encoders.ENCODERS[self.encoder].repository}

    def _read(self, documents: pd.Series) -> tuple[np.ndarray, float]:
        return encoders.encode_timed(documents, self.encoder)
