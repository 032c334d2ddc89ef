"""What every recommender answers, and what a hybrid asks of whatever it is joined with."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np

from nbrec import checks

if TYPE_CHECKING:  # hints alone: an architecture needs torch and numpy, and no table
    import pandas as pd
    from torch import Tensor

    from nbrec.sequences import Sequences


class Recommender:
    """What all recommenders share: an answer in movieIds, and a description of themselves.

    A model adds ``score`` and ``fit``, which ends with ``self.remember(train)``, so that one that
    failed half-way does not pass for fitted. What ``__init__`` takes it keeps as attributes of the
    same names.
    """

    name = ""  # that it was created by
    catalogue: np.ndarray | None = None  # int64 (V,): the movieId of each index; None before fit
    curve: Any = None  # the ``train.LearningCurve`` of a training in epochs
    seconds = 0.0  # that the fit took, where it is known better than by whoever waited
    device = "cpu"  # where its numbers were computed: "cuda" or "cpu"

    def fit(self, train: Sequences, validation: Sequences | None = None) -> Self:
        """Learn from the training sequences.

        Args:
            validation: for early stopping; a model that is trained in epochs holds out some of the
                training users where it is not given.
        """
        raise NotImplementedError(f"{type(self).__name__} has no fit")

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (B, V): a score of every item as the next one, higher is better.

        Args:
            histories: int (L,) each, L >= 1, catalogue indices in 0..V-1, oldest first.

        Raises:
            RuntimeError: before ``fit``.
            ValueError: a history is empty, or holds anything but catalogue indices.
        """
        raise NotImplementedError(f"{type(self).__name__} has no score")

    def describe(self) -> dict[str, Any]:
        """All settings, defaults included."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def remember(self, train: Sequences) -> None:
        """Keep of the training part what ``recommend`` needs."""
        self.catalogue = train.catalogue
        self.watched = 1000 * np.bincount(train.items, minlength=train.n_items) / max(len(train), 1)

    def fitted(self) -> Self:
        """Itself.

        Raises:
            RuntimeError: before ``fit``.
        """
        if self.catalogue is None:
            raise RuntimeError("this model has not been trained: call fit first")
        return self

    def recommend(self, movie_ids: Iterable[int], k: int = 10) -> pd.DataFrame:
        """The k best next films for somebody who has seen these; what they have seen is left out.

        Args:
            movie_ids: oldest first. After none the most popular films are recommended.
            k: how many, 1 or more; there are fewer if the catalogue has fewer.

        Returns:
            movieId and score, best first. The score of a popular film is the share of the training
            users who have seen it, in per mille.

        Raises:
            RuntimeError: before ``fit``.
            ValueError: k is below 1, or a movieId is not among the films of the training part.
        """
        import pandas as pd

        checks.whole("k", k, low=1)
        catalogue: np.ndarray = self.fitted().catalogue  # type: ignore[assignment]
        seen, unknown = checks.movie_ids(movie_ids, catalogue)
        if len(unknown):
            first = ", ".join(map(str, unknown[:5])) + ", .." * (len(unknown) > 5)
            raise ValueError(f"movieIds {first}: expected some of the {len(catalogue):,} films "
                             "that the model was fitted on; leave the others out")
        scores = self.score([seen])[0] if len(seen) else self.watched
        order = np.argsort(-scores, kind="stable")
        best = order[~np.isin(order, seen)][:k]
        return pd.DataFrame({"movieId": catalogue[best], "score": scores[best]})


@runtime_checkable
class Context(Protocol):
    """What a hybrid asks of what it is joined with: any class that answers this will do.

    Before ``fit`` its ``catalogue`` is None. A ``Recommender`` has the attributes already.
    """

    catalogue: np.ndarray | None
    curve: Any
    seconds: float

    def fit(self, train: Sequences, validation: Sequences | None = None) -> Any:
        """Learn from the training sequences and, once all is learned, keep their catalogue."""

    def item_vectors(self) -> Tensor:
        """float32 (V, d): what is known of each item, for an early fusion."""

    def user_vectors(self, histories: Sequence[np.ndarray], fold_in: bool = True) -> Tensor:
        """float32 (B, d): what is known of users with these histories, for a late fusion.

        Args:
            fold_in: treat everybody as a newcomer, also those who were met in training.
        """

    def describe(self) -> dict[str, Any]:
        """All settings, defaults included."""
