"""What graph models do otherwise: BPR over the interactions of their graph (thesis eq. 3.16)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from nbrec import metrics
from nbrec.losses import bpr
from nbrec.models.graph import GraphModel
from nbrec.sequences import Sequences
from nbrec.train.loop import Trainer, check_parts
from nbrec.train.settings import LearningCurve, StopRule, TrainSettings


class Pairs(NamedTuple):
    """Users, an item that each has seen, and one that each has not: int64 (T,) each."""

    users: np.ndarray
    targets: np.ndarray
    negatives: np.ndarray


def fit_graph(model: GraphModel, train: Sequences, validation: Sequences,
              settings: TrainSettings | None = None, progress: bool = False,
              checkpoint: str | Path | None = None) -> LearningCurve:
    """Minimise a graph model's BPR with AdamW, and stop on how well it ranks validation targets.

    Each interaction of the graph is held against an item, drawn anew in every epoch, that the user
    has not seen. Arguments and errors as in ``nbrec.train.fit``; what is learned is the graph, and
    of the training sequences the catalogue alone.
    """
    check_parts(model.n_items, train, validation)
    digests = {"train": train.digest(), "validation": validation.digest(),
               "graph": model.graph.digest()}
    trainer = GraphTrainer(model, settings or TrainSettings(), digests)
    return trainer.run(train, validation, progress, checkpoint)


class GraphTrainer(Trainer):
    """A graph model in training."""

    model: GraphModel

    def __init__(self, model: GraphModel, settings: TrainSettings,
                 digests: dict[str, str] | None = None):
        # Vectors of 64 numbers gain nothing from half precision, and sparse products lack it.
        if settings.precision == "auto":
            settings = replace(settings, precision="fp32")
        if settings.precision != "fp32":
            raise ValueError(f"precision={settings.precision!r}: a graph model trains in fp32; "
                             "expected fp32 or auto")
        super().__init__(model, settings, digests)
        self.seen = model.graph.interactions
        self.stop_rule = StopRule(metrics.ndcg, model.n_items)

    def train_batches(self, train: Sequences, rng: np.random.Generator) -> Iterator[list[Pairs]]:
        """Every interaction once, in random order, with an item that the user has not seen."""
        users = np.repeat(np.arange(self.seen.shape[0]), np.diff(self.seen.indptr))
        order = rng.permutation(len(users))
        users, positive = users[order], self.seen.indices[order]
        negative = sample_negatives(self.seen, users, rng)
        for start in range(0, len(users), self.settings.batch_size):
            part = slice(start, start + self.settings.batch_size)
            yield [Pairs(users[part], positive[part].astype(np.int64), negative[part])]

    def loss(self, micro_batch: Pairs) -> Tensor:
        users, positive, negative = (torch.from_numpy(a).to(self.device) for a in micro_batch)
        h = self.model()
        user = h[self.model.n_items + users]
        return bpr((user * h[positive]).sum(1), (user * h[negative]).sum(1))

    @torch.no_grad()
    def validate(self, validation: Sequences) -> float:
        """1 - NDCG of the validation targets over the whole catalogue.

        BPR's own loss rises again long before the ranking is at its best: it mostly counts how
        far easy items lie behind.
        """
        self.model.eval()
        histories = validation.histories()
        users, items = self.model.vectors(histories)
        scores = (users @ items.T).cpu().numpy()
        return self.stop_rule.loss(scores, validation.targets(), histories)


def sample_negatives(seen: csr_array, users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each user an item, drawn uniformly from those that they have not seen.

    Args:
        seen: sparse (U, V), sorted indices.
        users: int (T,).

    Returns:
        int64 (T,).

    Raises:
        ValueError: a user has seen everything.
    """
    n_items = seen.shape[1]
    counts = np.diff(seen.indptr)
    if len(counts) and counts.max() >= n_items:
        raise ValueError(f"user {int(counts.argmax())} has seen all {n_items} items: there is none "
                         "to hold against them. Leave the user out")
    taken = np.repeat(np.arange(len(counts)), counts) * n_items + seen.indices  # ascending
    drawn = rng.integers(0, n_items, len(users))
    again = np.arange(len(users))
    while len(again):
        keys = users[again] * n_items + drawn[again]
        place = np.minimum(np.searchsorted(taken, keys), len(taken) - 1)
        again = again[taken[place] == keys]
        drawn[again] = rng.integers(0, n_items, len(again))
    return drawn
