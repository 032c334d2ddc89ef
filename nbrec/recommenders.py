"""A name becomes something with ``fit`` and ``score``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from nbrec import train as training
from nbrec.models import next_item
from nbrec.models.baselines import EASE, MarkovChain, Popularity
from nbrec.models.item_knn import ItemKNN
from nbrec.models.svd import SVD
from nbrec.models.user_knn import UserKNN
from nbrec.sequences import Sequences
from nbrec.train import History, TrainSettings

CLASSICAL = {"popularity": Popularity, "markov": MarkovChain, "ease": EASE, "item-knn": ItemKNN,
             "user-knn": UserKNN, "svd": SVD}
NEURAL = {"transformer": next_item.transformer, "mamba": next_item.mamba,
          "xlstm": next_item.xlstm}


def create(name: str, **settings):
    """Make a recommender by name.

    Args:
        name: one of ``names()``.
        settings: arguments of the model (``d_model``, ``last_n``, ..) and, for neural models, of
            ``TrainSettings`` (``learning_rate``, ``seed``, ..).

    Returns:
        An object with ``fit(train, validation) -> self`` and
        ``score(histories) -> float32 (B, V)``.

    Raises:
        ValueError: the name is not known.
        TypeError: the model has no such setting.
    """
    if name in CLASSICAL:
        return CLASSICAL[name](**settings)
    if name in NEURAL:
        own = {f.name for f in fields(TrainSettings)}
        train = TrainSettings(**{k: v for k, v in settings.items() if k in own})
        model = {k: v for k, v in settings.items() if k not in own}
        inspect.signature(NEURAL[name]).bind(0, **model)  # say now, not in fit, what is not known
        return SequenceRecommender(NEURAL[name], train, model)
    raise ValueError(f"there is no model {name!r}; there are {', '.join(names())}")


def names() -> list[str]:
    """All names that ``create`` knows."""
    return [*CLASSICAL, *NEURAL]


class SequenceRecommender:
    """A neural sequence model behind the interface of the classical ones.

    Args:
        build: called as ``build(n_items, **settings)`` for a new ``NextItemModel``.
        train_settings: how it is trained.
        settings: arguments of the model.
        batch_size: histories per forward pass when scoring.
    """

    def __init__(self, build: Callable, train_settings: TrainSettings, settings: dict,
                 batch_size: int = 256):
        self.build, self.train_settings, self.settings = build, train_settings, settings
        self.batch_size = batch_size
        self.history: History | None = None

    def fit(self, train: Sequences, validation: Sequences, checkpoint: str | Path | None = None,
            progress: bool = False) -> SequenceRecommender:
        """Train on ``train``, stop early on ``validation``; see ``nbrec.train.fit``."""
        with training.seeded(self.train_settings.seed):
            self.model = self.build(train.n_items, **self.settings)
        self.history = training.fit(self.model, train, validation, self.train_settings, progress,
                                    checkpoint)
        return self

    def score(self, histories: list[np.ndarray]) -> np.ndarray:
        """float32 (B, V): the logits of the next item after each history of at least one item.

        Raises:
            RuntimeError: before ``fit``.
            ValueError: a history is empty.
        """
        if self.history is None:
            raise RuntimeError("this model has not been trained: call fit first")
        device = next(self.model.parameters()).device
        longest = self.model.max_length
        histories = [history[-longest:] for history in histories]
        lengths = np.array([len(history) for history in histories])
        if len(lengths) and not lengths.min():
            raise ValueError("an empty history has no next item: give at least one item")
        scores = np.empty((len(histories), self.model.embedding.num_embeddings), np.float32)
        order = np.argsort(lengths, kind="stable")  # neighbours need little padding
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            items = np.zeros((len(rows), lengths[rows].max()), np.int64)
            for i, row in enumerate(rows):
                items[i, : lengths[row]] = histories[row]
            scores[rows] = self.model.score(
                torch.from_numpy(items).to(device), torch.from_numpy(lengths[rows]).to(device)
            ).float().cpu().numpy()
        return scores
