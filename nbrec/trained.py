"""Networks behind the interface of all recommenders: held-out part, training, hybrids."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from nbrec import checks
from nbrec import train as training
from nbrec.models import graph
from nbrec.models.fusion import EarlyFusion, LateFusion
from nbrec.models.graph import GraphModel
from nbrec.models.next_item import NextItemModel
from nbrec.models.recommender import Context, Recommender
from nbrec.sequences import Sequences
from nbrec.train import TrainSettings

PREFIXES = 50_000  # newcomers in a graph at a time: bounds the memory
HELD_OUT = 10  # one training user in so many
CONTROLS = ("", "zeros", "shuffled")


class Trained(Recommender):
    """A network that is trained in epochs.

    Args:
        build: makes a new network.
        train_settings: how it is trained.
        settings: arguments of ``build``.
    """

    model: Any

    def __init__(self, build: Callable[..., Any], train_settings: TrainSettings,
                 settings: Mapping[str, Any]):
        self.build, self.train_settings, self.settings = build, train_settings, dict(settings)

    def describe(self) -> dict[str, Any]:
        """All settings, defaults included."""
        return defaults(self.build) | self.settings | self.train_settings.described()

    @property
    def device(self) -> str:  # type: ignore[override]
        """Where its numbers were computed: "cuda" or "cpu"."""
        return next(self.fitted().model.parameters()).device.type

    def split(self, train: Sequences, validation: Sequences | None
              ) -> tuple[Sequences, Sequences]:
        """What is trained on, and what the training stops on.

        Without a validation part every tenth training user, one at least, is held out for it; the
        seed of the training draws them.

        Raises:
            ValueError: there are fewer than two users to draw from.
        """
        if validation is not None:
            return train, validation
        if len(train) < 2:
            raise ValueError(f"{len(train)} training users: expected two or more, one of them to "
                             "stop the training on, or a validation part")
        order = np.random.default_rng(self.train_settings.seed).permutation(len(train))
        n = max(1, len(train) // HELD_OUT)
        return train.select(np.sort(order[n:])), train.select(np.sort(order[:n]))


class GraphRecommender(Trained):
    """A graph model; ``build(graph, **settings)`` makes a new ``GraphModel``.

    Args:
        inductive: whether the graph holds the training users alone, so that it knows nothing of
            anybody it is asked about.
    """

    model: GraphModel

    def __init__(self, build: Callable[..., GraphModel], train_settings: TrainSettings,
                 settings: Mapping[str, Any], inductive: bool = False):
        checks.choice("inductive", inductive, (False, True))
        super().__init__(build, train_settings, settings)
        self.inductive = inductive

    def describe(self) -> dict[str, Any]:
        """All settings, defaults included."""
        return super().describe() | ({"inductive": True} if self.inductive else {})

    def fit(self, train: Sequences, validation: Sequences | None = None,
            checkpoint: str | Path | None = None, progress: bool = False,
            others: Sequence[np.ndarray] = ()) -> Self:
        """Train on the graph of all users with known histories; see ``nbrec.train.fit_graph``.

        The graph holds whole training sequences and, unless it is inductive, the histories of the
        validation part and of the others.

        Args:
            others: histories of further users, such as those of the test part. Users who are in no
                graph can be scored as well.
        """
        part, validation = self.split(train, validation)
        histories = [part[u] for u in range(len(part))]
        if not self.inductive:
            histories += validation.histories() + list(others)
        with training.seeded(self.train_settings.seed):
            self.model = self.build(graph.Graph(histories, part.n_items), **self.settings)
        self.curve = training.fit_graph(self.model, part, validation, self.train_settings,
                                        progress, checkpoint)
        self.seconds = sum(self.curve.seconds)
        self.remember(train)
        return self

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (B, V): products of user and item vectors."""
        users, items = self.fitted().model.vectors(histories)
        return (users @ items.T).cpu().numpy()

    def item_vectors(self) -> torch.Tensor:
        """float32 (V, d): the frozen vectors for an early fusion."""
        return self.fitted().model.vectors([])[1].clone()

    def user_vectors(self, histories: Sequence[np.ndarray], fold_in: bool = True) -> torch.Tensor:
        """float32 (B, d): the vectors of users with these histories, for a late fusion."""
        return self.fitted().model.vectors(histories, fold_in)[0].cpu()


@dataclass(frozen=True)
class Parts:
    """What a name is made of.

    Args:
        base: a classical, content or graph model, a backbone, or a stack such as "attention-mamba".
        items: contexts that are joined with the items (early fusion).
        user: the context whose user vectors are joined with the states (late fusion); "" for none.
        literal: whether those vectors know the whole history, as the thesis has it.
    """

    base: str
    items: tuple[str, ...] = ()
    user: str = ""
    literal: bool = False

    @property
    def contexts(self) -> tuple[str, ...]:
        """All contexts, each once."""
        return tuple(dict.fromkeys((*self.items, *([self.user] if self.user else []))))


class SequenceRecommender(Trained):
    """A sequence model, alone or as a hybrid; ``build(n_items, **settings)`` makes a new one.

    Args:
        parts: what its name is made of.
        contexts: context -> what answers for it, fitted or not.
        fusion_dropout: of the early fusion, in [0, 1); None takes the model's ``dropout``.
        control: "zeros" or "shuffled" joins zeros, or the vectors of other films, instead of the
            contexts' own, to see what the layers of the fusion are worth by themselves.
        batch_size: histories per forward pass when scoring.
    """

    model: NextItemModel

    def __init__(self, build: Callable[..., NextItemModel], train_settings: TrainSettings,
                 settings: Mapping[str, Any], parts: Parts, contexts: Mapping[str, Context],
                 fusion_dropout: float | None = None, control: str = "", batch_size: int = 256):
        super().__init__(build, train_settings, settings)
        self.parts, self.contexts, self.batch_size = parts, dict(contexts), batch_size
        if fusion_dropout is None:
            fusion_dropout = (defaults(build) | self.settings).get("dropout", 0.1)
        checks.number("fusion_dropout", fusion_dropout, low=0, below=1)
        checks.choice("control", control, CONTROLS)
        self.fusion_dropout, self.control = fusion_dropout, control

    def describe(self) -> dict[str, Any]:
        """All settings, defaults and contexts included."""
        own = super().describe()
        if self.parts.items:
            own["fusion_dropout"] = self.fusion_dropout
        if self.control:
            own["control"] = self.control
        if not self.contexts:
            return own
        return own | {"contexts": {name: c.describe() for name, c in self.contexts.items()}}

    def fit(self, train: Sequences, validation: Sequences | None = None,
            checkpoint: str | Path | None = None, progress: bool = False,
            others: Sequence[np.ndarray] = (),
            context_checkpoints: Mapping[str, Path] | None = None) -> Self:
        """Train on ``train``, stop early on ``validation``; see ``nbrec.train.fit``.

        Contexts that are not fitted yet are fitted first; then they are frozen.

        Args:
            others: histories of further users for the graph of a context.
            context_checkpoints: context -> checkpoint; a finished one saves its training.
        """
        part, validation = self.split(train, validation)
        for name, context in self.contexts.items():
            if context.catalogue is None:
                options: dict[str, Any] = {} if not isinstance(context, Trained) else {
                    "checkpoint": (context_checkpoints or {}).get(name), "progress": progress,
                    "others": others}
                context.fit(part, validation, **options)
            known = np.asarray([] if context.catalogue is None else context.catalogue)
            if not np.array_equal(known, train.catalogue):
                raise ValueError(f"the context {name!r} was fitted on another catalogue "
                                 f"({known.size} films) than the training "
                                 f"sequences ({train.n_items} films): expected the same movieIds; "
                                 "fit it on parts of the same Sequences")
        with training.seeded(self.train_settings.seed):
            self.model = self.build(part.n_items, **self.settings)
            width = self.model.embedding.embedding_dim
            if self.parts.items:
                self.model.early = EarlyFusion(
                    {name: self._item_vectors(name) for name in self.parts.items}, width,
                    self.fusion_dropout)
            if self.parts.user:
                self.model.late = LateFusion(self._users([part[0]]).shape[1], width)
        users = None
        if self.parts.user:
            users = (self._user_vectors(part, train=True), self._user_vectors(validation))
        self.curve = training.fit(self.model, part, validation, self.train_settings, progress,
                                  checkpoint, users)
        self.seconds = sum(self.curve.seconds)
        self.remember(train)
        return self

    def score(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """float32 (B, V): the logits of the next item after each history of at least one item."""
        model, users = self.fitted().model, None
        if self.parts.user:
            checks.histories(histories, model.n_items)
        if self.parts.user and len(histories):
            users = self._users(histories, not self.parts.literal)
        return model.score_histories(histories, users, self.batch_size)

    def _item_vectors(self, context: str) -> torch.Tensor:
        """float32 (V, d): what the early fusion joins, which a control puts out of joint."""
        vectors = _table(context, "item_vectors", self.contexts[context].item_vectors(),
                         np.size(self.contexts[context].catalogue))  # type: ignore[arg-type]
        if self.control == "zeros":
            return torch.zeros_like(vectors)
        if self.control == "shuffled":
            order = np.random.default_rng(self.train_settings.seed).permutation(len(vectors))
            return vectors[torch.from_numpy(order)]
        return vectors

    def _users(self, histories: Sequence[np.ndarray], fold_in: bool = True) -> torch.Tensor:
        """float32 (B, d): what the context of the late fusion says of these histories."""
        vectors = self.contexts[self.parts.user].user_vectors(histories, fold_in)
        return _table(self.parts.user, "user_vectors", vectors, len(histories))

    def _user_vectors(self, sequences: Sequences, train: bool = False) -> np.ndarray:
        """float32 (M, d): the user's vector after each item.

        Literal: one vector of all that the graph holds of the user, so that in training every
        position but the last is told of films that come after it. Otherwise: the vector of a
        newcomer who has seen the items so far.
        """
        if self.parts.literal:
            whole = [sequences[u] for u in range(len(sequences))] if train else (
                sequences.histories())
            return self._users(whole, fold_in=False)[
                np.repeat(np.arange(len(sequences)), sequences.lengths)].numpy()
        prefixes = [sequences[u][: t + 1] for u in range(len(sequences))
                    for t in range(len(sequences[u]))]
        return np.concatenate([self._users(prefixes[start : start + PREFIXES]).numpy()
                               for start in range(0, len(prefixes), PREFIXES)])


def _table(context: str, answer: str, vectors: Any, rows: int) -> torch.Tensor:
    """What a context answers as float32 (rows, d), checked."""
    right = isinstance(vectors, torch.Tensor) and vectors.ndim == 2 and len(vectors) == rows
    if not right or not torch.isfinite(vectors).all():
        found = (f"{type(vectors).__name__} of shape {tuple(np.shape(vectors))}" if not right else
                 f"{int((~torch.isfinite(vectors)).sum())} values that are not finite")
        raise ValueError(f"context {context!r}: {answer} gave {found}; expected a torch.Tensor of "
                         f"shape ({rows}, d), one row of finite numbers per {answer[:4]}")
    return vectors.detach().float()


def defaults(build: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a callable that have a default, with it."""
    parameters = inspect.signature(build).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}
