"""A name becomes something with ``fit`` and ``score``.

A hybrid is a name, too: a backbone, and behind each "+" a context that it is joined with.

    xlstm+gat                        frozen item vectors of a graph (thesis section 3.6.4)
    transformer+minibert+gat         several contexts at once
    mamba+gat+gat-user               the user's vector of the graph as well
    attention-mamba-mamba+tfidf      a stack of several kinds of blocks as the backbone
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from nbrec import checks
from nbrec import train as training
from nbrec.data import encoders, text
from nbrec.models import graph, graph_layers, next_item
from nbrec.models.baselines import EASE, MarkovChain, Popularity, fitted
from nbrec.models.content import Content
from nbrec.models.fusion import EarlyFusion, LateFusion
from nbrec.models.item_knn import ItemKNN
from nbrec.models.svd import SVD
from nbrec.models.user_knn import UserKNN
from nbrec.sequences import Sequences
from nbrec.train import LearningCurve, TrainSettings

CLASSICAL = {"popularity": Popularity, "markov": MarkovChain, "ease": EASE, "item-knn": ItemKNN,
             "user-knn": UserKNN, "svd": SVD}
CONTENT = ("tfidf", *encoders.ENCODERS)
GRAPHS = {"gcn": graph_layers.gcn, "lightgcn": graph_layers.lightgcn, "gat": graph_layers.gat}
NEURAL = {"transformer": next_item.transformer, "mamba": next_item.mamba,
          "xlstm": next_item.xlstm, "sasrec": next_item.sasrec,
          "mamba4rec": next_item.mamba4rec}
USER, LITERAL = "-user", "-user-literal"  # behind a context: how the user enters


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


def parse(name: str) -> Parts:
    """Take a name apart.

    Raises:
        ValueError: it is not the name of a model.
    """
    if not isinstance(name, str):
        raise ValueError(f"model {name!r}: expected a name, such as 'xlstm+gat'")
    base, *contexts = name.split("+")
    stack = base.split("-")
    backbone = base in NEURAL or len(stack) > 1 and set(stack) <= set(next_item.BLOCKS)
    known = [*CONTENT, *GRAPHS]
    users = [c for c in contexts if c.removesuffix(LITERAL).removesuffix(USER) != c]
    items = [c for c in contexts if c not in users]
    user = users[0].removesuffix(LITERAL).removesuffix(USER) if users else ""
    wrong = [c for c in (*items, *([user] if users else [])) if c not in known]
    if (wrong or len(users) > 1 or len(set(items)) < len(items)
            or not (backbone or not contexts and base in {*CLASSICAL, *known})):
        raise ValueError(
            f"there is no model {name!r}. There are {', '.join([*CLASSICAL, *known, *NEURAL])}; "
            f"stacks of {', '.join(next_item.BLOCKS)}, joined by '-'; and hybrids: one of "
            f"{', '.join(NEURAL)} or a stack, then '+' and each of {', '.join(known)} at most "
            f"once, and at most one of them with {USER} or {LITERAL} behind it")
    return Parts(base, tuple(items), user, bool(users) and users[0].endswith(LITERAL))


def missing(name: str) -> str:
    """Why a model cannot be used here, in a sentence; "" if it can."""
    parts = parse(name)
    for context in (parts.base, *parts.contexts):
        if context in encoders.ENCODERS and encoders.find_weights(context) is None:
            repository = encoders.ENCODERS[context].repository
            return (f"{name} is left out: the weights of {repository} are neither on this machine "
                    "nor within its reach.")
    return ""


def create(name: str, documents: pd.Series | None = None,
           contexts: Mapping[str, Any] | None = None, **settings):
    """Make a recommender by name.

    Args:
        name: see ``parse``.
        documents: text of each film by movieId, as ``text.documents`` gives it; for models that
            read.
        contexts: of a hybrid, context -> a recommender of that name, fitted or not; those that are
            not given are made with their default settings.
        settings: arguments of the model (``d_model``, ``last_n``, ..) and, for trained models, of
            ``TrainSettings`` (``learning_rate``, ``seed``, ..); of graph models ``inductive`` too,
            of models with early fusion its ``fusion_dropout``, by default the model's ``dropout``.

    Returns:
        An object with ``fit(train, validation) -> self`` and
        ``score(histories) -> float32 (B, V)``.

    Raises:
        ValueError: the name is not known, there are no documents to read, the model has no such
            setting, or a context is no recommender of its name.
    """
    parts = parse(name)
    if parts.base in CLASSICAL:
        _known(name, CLASSICAL[name], settings)
        return CLASSICAL[name](**settings)
    if parts.base in CONTENT:
        if not isinstance(documents, pd.Series):
            raise ValueError(f"{name} reads: give the documents of the films, as text.documents "
                             "makes them, a text of each film by movieId")
        _known(name, ContentRecommender, {"encoder": name, "documents": documents, **settings})
        return ContentRecommender(name, documents, **settings)
    own = {f.name for f in fields(TrainSettings)}
    train = {k: v for k, v in settings.items() if k in own}
    model = {k: v for k, v in settings.items() if k not in own}
    inductive = model.pop("inductive", False) if parts.base in GRAPHS else False
    fusion_dropout = model.pop("fusion_dropout", None) if parts.items else None
    build = GRAPHS.get(parts.base) or NEURAL.get(parts.base) or partial(
        next_item.stack, blocks=tuple(parts.base.split("-")))
    _known(name, build, {"": 0} | model)  # say now, not in fit, what is not known
    checks.choice("inductive", inductive, (False, True))
    if parts.base in GRAPHS:
        train = GRAPH_TRAINING | {"precision": "fp32"} | train
        return GraphRecommender(build, TrainSettings(**train), model, inductive)
    made = {c: (contexts or {}).get(c) or create(
        c, documents, **{"seed": train.get("seed", 0)} if c in GRAPHS else {})
        for c in parts.contexts}
    for context, one in made.items():
        kind = getattr(one, "encoder", None) or next(
            (n for n, b in GRAPHS.items() if b is getattr(one, "build", None)), context)
        if kind != context:  # whoever brings a class of their own knows what it is
            raise ValueError(f"context {context!r} of {name} is {kind}: expected a recommender "
                             f"that was created as {context!r}")
    return SequenceRecommender(build, TrainSettings(**train), model, parts, made, fusion_dropout)


def _known(name: str, build: Callable, settings: dict[str, Any]) -> None:
    parameters = inspect.signature(build).parameters
    given = [key for key in settings if key]
    if unknown := [key for key in given if key not in parameters]:
        known = [p for p in parameters if p not in ("graph", "n_items", "blocks", "encoder",
                                                    "documents")]
        raise ValueError(f"{name} has no setting {', '.join(unknown)}; expected some of "
                         f"{', '.join(known) or 'none'}"
                         + (" and those of TrainSettings" if "" in settings else ""))


def names() -> list[str]:
    """The names without a "+"; stacks apart, which have no end."""
    return [*CLASSICAL, *CONTENT, *GRAPHS, *NEURAL]


class ContentRecommender:
    """Films with a document like those of the history; see ``models.content.Content``.

    Args:
        encoder: "tfidf", or a key of ``encoders.ENCODERS``.
        documents: text of each film by movieId.
        dimensions: width of the item vectors that "tfidf" gives to a hybrid.
        last_n: score with the last n items of a history only; None uses all, as the thesis does.
    """

    def __init__(self, encoder: str, documents: pd.Series, dimensions: int = 256,
                 last_n: int | None = None):
        checks.whole("dimensions", dimensions, low=1)
        checks.whole("last_n", last_n, low=1, none=True)
        self.encoder, self.documents, self.dimensions = encoder, documents, dimensions
        self.last_n = last_n

    def describe(self) -> dict[str, Any]:
        """All settings, with a sha256 of the documents in their place."""
        digest = hashlib.sha256()
        for movie, document in self.documents.items():
            digest.update(f"{movie}\t{document}\n".encode())
        made = {"dimensions": self.dimensions} if self.encoder == "tfidf" else {
            "repository": encoders.ENCODERS[self.encoder].repository}
        return {"encoder": self.encoder, "last_n": self.last_n, **made,
                "documents_sha256": digest.hexdigest()}

    def fit(self, train: Sequences, validation: Sequences | None = None) -> ContentRecommender:
        """Read the documents of the catalogue; the interactions play no part."""
        documents = self.documents.reindex(train.catalogue).fillna("")
        if self.encoder == "tfidf":
            began = time.perf_counter()
            self.vectors = text.tfidf(documents)
            self.seconds = time.perf_counter() - began
        else:
            self.vectors, self.seconds = encoders.encode_timed(documents, self.encoder)
        self.model = Content(self.vectors, self.last_n)
        self.frozen, self.catalogue = None, train.catalogue
        return self

    def score(self, histories: list[np.ndarray]) -> np.ndarray:
        """float32 (B, V): cosines; ``history_matrix`` says what a history may be."""
        return fitted(self, "model").score(histories)

    def items(self) -> torch.Tensor:
        """float32 (V, d): the frozen vectors for an early fusion."""
        if self.frozen is None:
            self.frozen = torch.from_numpy(np.ascontiguousarray(
                text.latent(self.vectors, self.dimensions) if self.encoder == "tfidf"
                else self.vectors))
        return self.frozen

    def users(self, histories: list[np.ndarray], fold_in: bool = True) -> torch.Tensor:
        """float32 (B, d): the mean vector of each history, for a late fusion."""
        return torch.from_numpy(Content(self.items().numpy()).users(histories))


# Chosen on validation parts; the thesis names no settings of this training.
GRAPH_TRAINING = {"learning_rate": 1e-2, "weight_decay": 0.0, "batch_size": 8192,
                  "max_epochs": 300, "patience": 30, "min_improvement": 0.001}


class GraphRecommender:
    """A graph model behind the interface of the classical ones.

    Args:
        build: called as ``build(graph, **settings)`` for a new ``GraphModel``.
        train_settings: how it is trained.
        settings: arguments of the model.
        inductive: whether the graph holds the training users alone, so that it knows nothing of
            anybody it is asked about.
    """

    def __init__(self, build: Callable, train_settings: TrainSettings, settings: dict,
                 inductive: bool = False):
        self.build, self.train_settings, self.settings = build, train_settings, settings
        self.inductive = inductive
        self.history: LearningCurve | None = None

    def describe(self) -> dict[str, Any]:
        """All settings, defaults included."""
        return (_defaults(self.build) | self.settings | self.train_settings.described()
                | ({"inductive": True} if self.inductive else {}))

    def fit(self, train: Sequences, validation: Sequences, checkpoint: str | Path | None = None,
            progress: bool = False, others: list[np.ndarray] = ()) -> GraphRecommender:
        """Train on the graph of all users with known histories; see ``nbrec.train.fit_graph``.

        The graph holds whole training sequences and, unless it is inductive, the histories of the
        validation part and of the others.

        Args:
            others: histories of further users, such as those of the test part. Users who are in no
                graph can be scored as well.
        """
        histories = [train[u] for u in range(len(train))]
        if not self.inductive:
            histories += validation.histories() + list(others)
        with training.seeded(self.train_settings.seed):
            self.model = self.build(graph.Graph(histories, train.n_items), **self.settings)
        self.history = training.fit_graph(self.model, train, validation, self.train_settings,
                                          progress, checkpoint)
        self.catalogue = train.catalogue
        return self

    @property
    def seconds(self) -> float:
        """How long the training took."""
        return sum(self.history.seconds)

    def score(self, histories: list[np.ndarray]) -> np.ndarray:
        """float32 (B, V): products of user and item vectors."""
        users, items = self._fitted().vectors(histories)
        return (users @ items.T).cpu().numpy()

    def items(self) -> torch.Tensor:
        """float32 (V, d): the frozen vectors for an early fusion."""
        return self._fitted().vectors([])[1].clone()

    def users(self, histories: list[np.ndarray], fold_in: bool = True) -> torch.Tensor:
        """float32 (B, d): the vectors of users with these histories, for a late fusion."""
        return self._fitted().vectors(histories, fold_in)[0].cpu()

    def _fitted(self) -> graph.GraphModel:
        if self.history is None:
            raise RuntimeError("this model has not been trained: call fit first")
        return self.model


class SequenceRecommender:
    """A neural sequence model, alone or as a hybrid, behind the interface of the classical ones.

    Args:
        build: called as ``build(n_items, **settings)`` for a new ``NextItemModel``.
        train_settings: how it is trained.
        settings: arguments of the model.
        parts: what its name is made of.
        contexts: context -> recommender with ``items`` and ``users``, fitted or not.
        fusion_dropout: of the early fusion, in [0, 1); None takes the model's ``dropout``.
        batch_size: histories per forward pass when scoring.
    """

    def __init__(self, build: Callable, train_settings: TrainSettings, settings: dict,
                 parts: Parts, contexts: Mapping[str, Any], fusion_dropout: float | None = None,
                 batch_size: int = 256):
        self.build, self.train_settings, self.settings = build, train_settings, settings
        self.parts, self.contexts, self.batch_size = parts, dict(contexts), batch_size
        if fusion_dropout is None:
            fusion_dropout = (_defaults(build) | settings)["dropout"]
        checks.number("fusion_dropout", fusion_dropout, low=0, below=1)
        self.fusion_dropout = fusion_dropout
        self.history: LearningCurve | None = None

    def describe(self) -> dict[str, Any]:
        """All settings, defaults and contexts included."""
        own = _defaults(self.build) | self.settings | self.train_settings.described()
        if self.parts.items:
            own["fusion_dropout"] = self.fusion_dropout
        if not self.contexts:
            return own
        return own | {"contexts": {name: c.describe() for name, c in self.contexts.items()}}

    def fit(self, train: Sequences, validation: Sequences, checkpoint: str | Path | None = None,
            progress: bool = False, others: list[np.ndarray] = (),
            context_checkpoints: Mapping[str, Path] | None = None) -> SequenceRecommender:
        """Train on ``train``, stop early on ``validation``; see ``nbrec.train.fit``.

        Contexts that are not fitted yet are fitted first; then they are frozen.

        Args:
            others: histories of further users for the graph of a context.
            context_checkpoints: context -> checkpoint; a finished one saves its training.
        """
        for name, context in self.contexts.items():
            if name in CONTENT and not hasattr(context, "vectors"):
                context.fit(train, validation)
            elif name in GRAPHS and context.history is None:
                context.fit(train, validation, (context_checkpoints or {}).get(name), progress,
                            others)
        for name, context in self.contexts.items():
            if not np.array_equal(getattr(context, "catalogue", train.catalogue), train.catalogue):
                raise ValueError(f"the context {name!r} was fitted on another catalogue "
                                 f"({len(context.catalogue)} films) than the training sequences "
                                 f"({train.n_items} films): expected the same movieIds; fit it on "
                                 "parts of the same Sequences")
        with training.seeded(self.train_settings.seed):
            self.model = self.build(train.n_items, **self.settings)
            width = self.model.embedding.embedding_dim
            if self.parts.items:
                self.model.early = EarlyFusion(
                    {name: self.contexts[name].items() for name in self.parts.items}, width,
                    self.fusion_dropout)
            if self.parts.user:
                user = self.contexts[self.parts.user]
                self.model.late = LateFusion(user.users([train[0]]).shape[1], width)
        users = None
        if self.parts.user:
            users = (self._user_vectors(train, train=True), self._user_vectors(validation))
        self.history = training.fit(self.model, train, validation, self.train_settings, progress,
                                    checkpoint, users)
        return self

    @property
    def context_seconds(self) -> dict[str, float]:
        """How long each context took."""
        return {name: context.seconds for name, context in self.contexts.items()}

    def score(self, histories: list[np.ndarray]) -> np.ndarray:
        """float32 (B, V): the logits of the next item after each history of at least one item.

        Raises:
            RuntimeError: before ``fit``.
            ValueError: a history is empty.
        """
        if self.history is None:
            raise RuntimeError("this model has not been trained: call fit first")
        users = None
        if self.parts.user:
            checks.histories(histories, self.model.n_items)
        if self.parts.user and len(histories):
            users = self.contexts[self.parts.user].users(histories, not self.parts.literal)
        return self.model.score_histories(histories, users, self.batch_size)

    def _user_vectors(self, sequences: Sequences, train: bool = False) -> np.ndarray:
        """float32 (M, d): the user's vector after each item.

        Literal: one vector of all that the graph holds of the user, so that in training every
        position but the last is told of films that come after it. Otherwise: the vector of a
        newcomer who has seen the items so far.
        """
        context = self.contexts[self.parts.user]
        if self.parts.literal:
            whole = [sequences[u] for u in range(len(sequences))] if train else (
                sequences.histories())
            return context.users(whole, fold_in=False)[
                np.repeat(np.arange(len(sequences)), sequences.lengths)].numpy()
        prefixes = [sequences[u][: t + 1] for u in range(len(sequences))
                    for t in range(len(sequences[u]))]
        return np.concatenate([context.users(prefixes[start : start + PREFIXES]).numpy()
                               for start in range(0, len(prefixes), PREFIXES)])


PREFIXES = 50_000  # newcomers in a graph at a time: bounds the memory


def _defaults(build: Callable) -> dict[str, Any]:
    parameters = inspect.signature(build).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}
