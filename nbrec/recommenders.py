"""The models by name: one entry each in ``MODELS``, from which all else follows.

A hybrid is a name, too: a backbone, and behind each "+" a context that it is joined with.

    xlstm+gat                        frozen item vectors of a graph (thesis section 3.6.4)
    transformer+minibert+gat         several contexts at once
    mamba+gat+gat-user               the user's vector of the graph as well
    attention-mamba-mamba+tfidf      a stack of several kinds of blocks as the backbone
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import pandas as pd

from nbrec import checks
from nbrec.content import TFIDF, Encoded
from nbrec.data import encoders
from nbrec.models import graph_layers, next_item
from nbrec.models.baselines import EASE, MarkovChain, Popularity
from nbrec.models.item_knn import ItemKNN
from nbrec.models.recommender import Context, Recommender
from nbrec.models.svd import SVD
from nbrec.models.user_knn import UserKNN
from nbrec.train import TrainSettings
from nbrec.trained import GraphRecommender, Parts, SequenceRecommender

KINDS = ("classical", "content", "graph", "sequence")
CONTEXTS = ("content", "graph")  # the kinds that a hybrid may be joined with
USER, LITERAL = "-user", "-user-literal"  # behind a context: how the user enters
# Chosen on validation parts; the thesis names no settings of this training.
GRAPH_TRAINING = {"learning_rate": 1e-2, "weight_decay": 0.0, "batch_size": 8192,
                  "max_epochs": 300, "patience": 30, "min_improvement": 0.001}


@dataclass(frozen=True)
class Model:
    """What makes a model known: to ``create``, to profiles, to hybrids, to tables and figures.

    Args:
        build: of a classical model, called with its settings, a ``Recommender``; of a content
            model a ``Context`` that scores as well, or not, and gets the ``documents`` of the films
            if it has an argument of that name; of a graph model (graph, settings) ->
            ``GraphModel``; of a sequence model (n_items, settings) -> ``NextItemModel``.
        kind: one of ``KINDS``. Content and graph models are contexts, sequence models backbones of
            hybrids.
        label: as tables and figures write it.
        colour: "#rrggbb".
        marker: of matplotlib.
        defaults: profile -> settings; the profiles that are not named do not have the model.
        hybrids: what stands behind the first "+" -> colour; others get a paler ``colour``.
        missing: called before any work; why the model cannot be used here, "" if it can.
    """

    build: Callable[..., Any]
    kind: str
    label: str
    colour: str = "#444c56"
    marker: str = "X"
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hybrids: Mapping[str, str] = field(default_factory=dict)
    missing: Callable[[], str] = str

    def __post_init__(self):
        checks.choice("kind", self.kind, KINDS)
        if not callable(self.build):
            raise ValueError(f"build={self.build!r}: expected a class or a function that makes "
                             "the model")
        if not re.fullmatch("#[0-9a-fA-F]{6}", self.colour):
            raise ValueError(f"colour={self.colour!r}: expected '#rrggbb'")

    @property
    def trained(self) -> bool:
        """Whether it is a network that is trained in epochs, from a seed."""
        return self.kind in ("graph", "sequence")

    @property
    def scores(self) -> bool:
        """Whether it ranks films by itself, as a content model need not."""
        made = getattr(self.build, "func", self.build)
        return not isinstance(made, type) or (
            getattr(made, "score", Recommender.score) is not Recommender.score)

    @property
    def reads(self) -> bool:
        """Whether it is built from the documents of the films."""
        return "documents" in inspect.signature(self.build).parameters


def _each(**settings: Any) -> dict[str, dict[str, Any]]:
    """Settings by profile; a list holds a value for each of them."""
    return {profile: {name: value[i] if isinstance(value, list) else value
                      for name, value in settings.items()}
            for i, profile in enumerate(("sample", "laptop", "full"))}


def _layers(**settings: Any) -> dict[str, dict[str, Any]]:
    """Two layers, inner widths as in the thesis's Tables 3.1 to 3.6; "full" is its own size."""
    return _each(**settings, n_layers=2, dropout=0.1, patience=5, min_improvement=0.01,
                 d_model=[64, 128, 512], learning_rate=[1e-3, 1e-3, 1e-4],
                 batch_size=[32, 128, 128], max_epochs=[60, 60, 200])


def _encoder(name: str, label: str, colour: str) -> Model:
    def missing() -> str:
        return "" if encoders.find_weights(name) is not None else (
            f"the weights of {encoders.ENCODERS[name].repository} are neither on this machine nor "
            "within its reach.")

    return Model(partial(Encoded, name), "content", label, colour, "d", _each(), missing=missing)


# Okabe and Ito's colours stay apart for colour-blind eyes. Each family has one hue and varies its
# lightness; markers tell its members apart without colour. The EASE penalty, rank, neighbours and
# `input_dropout` were chosen on a validation part of an older copy of MovieLens 1M.
MODELS: dict[str, Model] = {
    "popularity": Model(Popularity, "classical", "Popularity", "#8c959f", "*", _each()),
    "markov": Model(MarkovChain, "classical", "Markov chain", "#57606a", "v", _each()),
    "ease": Model(EASE, "classical", "EASE", "#000000", "P", _each(l2=[30.0, 250.0, 250.0])),
    "item-knn": Model(ItemKNN, "classical", "Item-KNN", "#E69F00", "D", _each()),
    "user-knn": Model(UserKNN, "classical", "User-KNN", "#B87A00", "<", _each(neighbours=50)),
    "svd": Model(SVD, "classical", "SVD", "#7A5200", ">", _each(rank=[20, 50, 50])),
    "transformer": Model(
        next_item.transformer, "sequence", "Transformer", "#0072B2", "o",
        _layers(n_heads=[2, 4, 8], d_ff=[256, 512, 2048]),
        {"gat": "#D95400", "lightgcn": "#722D00", "gcn": "#FF7014", "minibert": "#FFA76E",
         "modernbert": "#993C00", "tfidf": "#FFD2B5", "gat+gat-user": "#E8894F",
         "gat+gat-user-literal": "#A33F00"}),
    "mamba": Model(
        next_item.mamba, "sequence", "Mamba", "#56B4E9", "s",
        _layers(d_state=16, d_conv=8, expand=2, input_dropout=[0.2, 0.2, 0.0]),
        {"gat": "#C75699", "lightgcn": "#702552", "gcn": "#D580B3", "minibert": "#E3ABCD",
         "modernbert": "#97326F", "tfidf": "#EECBE0"}),
    "xlstm": Model(
        next_item.xlstm, "sequence", "xLSTM", "#003F66", "^",
        _layers(n_heads=8, expand=2, input_dropout=[0.2, 0.2, 0.0]),
        {"gat": "#A860CA", "lightgcn": "#682C82", "gcn": "#BD87D7", "minibert": "#D3AEE4",
         "modernbert": "#8137A5", "tfidf": "#EAD9F2", "gat+gat-user": "#D9BFE8",
         "gat+gat-user-literal": "#54206E"}),
    "sasrec": Model(next_item.sasrec, "sequence", "SASRec", "#4C3BCF", "X"),
    "mamba4rec": Model(next_item.mamba4rec, "sequence", "Mamba4Rec", "#2A8FBD", "8"),
    "tfidf": Model(TFIDF, "content", "TF-IDF", "#F0C75E", "^", _each()),
    "minibert": _encoder("minibert", "MiniBERT", "#C9A227"),
    "modernbert": _encoder("modernbert", "ModernBERT", "#8A6D00"),
    "gcn": Model(graph_layers.gcn, "graph", "GCN", "#8FD3BC", "v", _each()),
    "lightgcn": Model(graph_layers.lightgcn, "graph", "LightGCN", "#00B386", "p", _each()),
    "gat": Model(graph_layers.gat, "graph", "GAT", "#006B4E", "h", _each()),
}


def names(*kinds: str) -> list[str]:
    """The names without a "+", of these kinds alone if any are given; stacks apart, which have no
    end."""
    return [name for name, model in MODELS.items() if not kinds or model.kind in kinds]


def parse(name: str) -> Parts:
    """Take a name apart.

    Raises:
        ValueError: it is not the name of a model.
    """
    if not isinstance(name, str):
        raise ValueError(f"model {name!r}: expected a name, such as 'xlstm+gat'")
    base, *contexts = name.split("+")
    stack = base.split("-")
    known, backbones = names(*CONTEXTS), names("sequence")
    backbone = base in backbones or len(stack) > 1 and set(stack) <= set(next_item.BLOCKS)
    users = [c for c in contexts if c.removesuffix(LITERAL).removesuffix(USER) != c]
    items = [c for c in contexts if c not in users]
    user = users[0].removesuffix(LITERAL).removesuffix(USER) if users else ""
    wrong = [c for c in (*items, *([user] if users else [])) if c not in known]
    if (wrong or len(users) > 1 or len(set(items)) < len(items)
            or not (backbone or not contexts and base in MODELS)):
        raise ValueError(
            f"there is no model {name!r}. There are {', '.join(MODELS)}; "
            f"stacks of {', '.join(next_item.BLOCKS)}, joined by '-'; and hybrids: one of "
            f"{', '.join(backbones)} or a stack, then '+' and each of {', '.join(known)} at most "
            f"once, and at most one of them with {USER} or {LITERAL} behind it")
    return Parts(base, tuple(items), user, bool(users) and users[0].endswith(LITERAL))


def models_in(name: str) -> list[Model]:
    """The entries that a name is made of; a stack of blocks has one that is in no table."""
    parts = parse(name)
    blocks = tuple(parts.base.split("-"))
    stack = Model(partial(next_item.stack, blocks=blocks), "sequence", parts.base)
    return [MODELS.get(parts.base, stack), *(MODELS[c] for c in parts.contexts)]


def missing(name: str) -> str:
    """Why a model cannot be used here, in a sentence; "" if it can."""
    entry, *others = models_in(name)
    reasons = [reason for model in (entry, *others) if (reason := model.missing())]
    if not entry.scores:
        reasons += ["it has no score, so it is a context alone: join it with a sequence model."]
    return f"{name} is left out: {reasons[0]}" if reasons else ""


def create(name: str, documents: pd.Series | None = None,
           contexts: Mapping[str, Context] | None = None, **settings: Any) -> Any:
    """Make a recommender by name.

    Args:
        name: see ``parse``.
        documents: text of each film by movieId, as ``text.documents`` gives it; for models that
            read.
        contexts: of a hybrid, context -> what answers for it, fitted or not; those that are not
            given are made with their default settings.
        settings: arguments of the model (``d_model``, ``last_n``, ..) and, for trained models, of
            ``TrainSettings`` (``learning_rate``, ``seed``, ..); of graph models ``inductive`` too,
            of models with early fusion its ``fusion_dropout``, by default the model's ``dropout``,
            and its ``control`` (see ``SequenceRecommender``).

    Returns:
        a ``Recommender``.

    Raises:
        ValueError: the name is not known, there are no documents to read, the model has no such
            setting, or a context is none of the name's or no recommender of its own.
    """
    parts, (entry, *_) = parse(name), models_in(name)
    given = dict(contexts or {})
    if unknown := [c for c in given if c not in parts.contexts]:
        raise ValueError(f"{name} is not joined with {', '.join(map(repr, unknown))}: expected "
                         f"{' or '.join(parts.contexts) or 'no contexts'}")
    build, own = entry.build, {f.name for f in fields(TrainSettings)}
    if not entry.trained:
        if entry.reads:
            build = partial(build, documents=documents)
        _known(name, build, settings)
        return _named(name, build(**settings))
    train = {k: v for k, v in settings.items() if k in own}
    model = {k: v for k, v in settings.items() if k not in own}
    inductive = model.pop("inductive", False) if entry.kind == "graph" else False
    fusion = {k: model.pop(k) for k in ("fusion_dropout", "control") if k in model and parts.items}
    _known(name, build, model, trained=True)  # say now, not in fit, what is not known
    if entry.kind == "graph":
        training = TrainSettings(**(GRAPH_TRAINING | {"precision": "fp32"} | train))
        return _named(name, GraphRecommender(build, training, model, inductive))
    seed = {"seed": train.get("seed", 0)}
    made = {c: given.get(c) or create(c, documents, **seed if MODELS[c].kind == "graph" else {})
            for c in parts.contexts}
    for context, one in made.items():
        if isinstance(one, Recommender) and one.name not in ("", context):
            raise ValueError(f"context {context!r} of {name} is {one.name}: expected a recommender "
                             f"that was created as {context!r}")
    return _named(name, SequenceRecommender(build, TrainSettings(**train), model, parts, made,
                                            **fusion))


def _named(name: str, recommender: Any) -> Any:
    recommender.name = name
    return recommender


def _known(name: str, build: Callable[..., Any], settings: Mapping[str, Any],
           trained: bool = False) -> None:
    parameters = inspect.signature(build).parameters
    if unknown := [key for key in settings if key not in parameters]:
        known = [p for p in parameters if p not in ("graph", "n_items", "blocks", "documents")]
        raise ValueError(f"{name} has no setting {', '.join(unknown)}; expected some of "
                         f"{', '.join(known) or 'none'}"
                         + (" and those of TrainSettings" if trained else ""))
