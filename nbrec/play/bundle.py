"""A trained model in one file; `nbrec.play.explore` has what the page and the app ask of it.

    python -m nbrec.play.bundle transformer xlstm+gat      trains them and writes app/models/

A bundle holds the weights, the catalogue, the sequences the model was made from and who of them
was a test user: enough to recommend, to explain and to try it on a user it has never seen.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.preprocessing import normalize

from nbrec import checks, experiment, files, metrics, paths, provenance, recommenders
from nbrec.content import ContentRecommender, Encoded
from nbrec.data import encoders, movielens, text
from nbrec.evaluate import evaluate
from nbrec.files import atomic
from nbrec.models.fusion import EarlyFusion
from nbrec.models.graph import Graph
from nbrec.profiles import Chosen, Profile, get_profile
from nbrec.sequences import Fold, Sequences
from nbrec.train import LearningCurve, below
from nbrec.trained import GraphRecommender, SequenceRecommender, Trained

FOLDER = paths.MODELS
FILMS = "films.csv.gz"
EMBEDDED = "ml-latest-small"  # its licence lets it be passed on; that of larger editions does not
# What is embedded: those one can play with, and those whose item vectors make a movie space.
NAMES = ("transformer", "mamba", "xlstm", "xlstm+gat", "item-knn", "gat", "lightgcn", "minibert")
SCHEMA = 2  # 1 had no place for "leave_out"
COARSE = 31  # content vectors are kept as whole numbers -31..31: cosines move by less than 0.01


@dataclass(frozen=True)
class Bundle:
    """A fitted model with everything that it takes to use it.

    Args:
        name: label of the profile that it was trained with; names its file.
        recommender: fitted; ``score(histories) -> float32 (B, V)``.
        sequences: of all users; the model was trained on ``fold.train`` alone.
        fold: positions of the training, validation and test users in ``sequences``.
        settings: profile, dataset, and under "model" those of the label, whose own "model", if
            there is one, is the name for ``recommenders.create``.
        metrics: hr@20 and ndcg@20 on the test users, films of the history left out.
        provenance: commit, versions, date.
        others: movieId int64 (W,) of films outside the catalogue and their content vectors,
            float32 (W, d) of length 1; of content models only.
    """

    name: str
    recommender: Any
    sequences: Sequences
    fold: Fold
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    others: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def catalogue(self) -> np.ndarray:
        """int64 (V,): the movieId of each index, ascending."""
        return self.sequences.catalogue

    @property
    def popularity(self) -> np.ndarray:
        """float64 (V,): the share of the training users who have seen each film."""
        return metrics.popularity(self.fold.parts(self.sequences)[0])

    def indices(self, movies: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """movieIds -> catalogue indices int64 (L,) in the same order, and the movieIds that are
        not in the catalogue, int64.

        Raises:
            ValueError: it is no list, or a movieId is no whole number, or out of range.
        """
        return checks.movie_ids(movies, self.catalogue)


def train(name: str, profile: Profile | str = "sample", fold: int = 0,
          data: movielens.MovieLens | None = None) -> Bundle:
    """Train a model with the settings and the seed of the experiment.

    Weights are rounded to half precision, as the file holds them, before the test users are ranked.
    What a content model reads is title, year, genres and tags alone: that may be passed on with
    the data, other people's summaries may not.

    Args:
        name: label of a model of the profile.
        fold: which of the profile's folds; its test users take no part in the training. Their
            histories, without the targets, are nodes of a graph, as in the experiment.
        data: tables that are loaded already.

    Raises:
        ValueError: the profile has no such model or fold, or a bundle cannot hold it.
    """
    profile = get_profile(profile) if isinstance(profile, str) else profile
    check(name, profile, fold)
    data = movielens.load(profile.dataset) if data is None else data
    sequences = experiment.make_sequences(profile, data)
    split = experiment.make_folds(profile, sequences)[fold]
    reads = any(part.reads for part in recommenders.models_in(profile.chosen(name).name))
    documents = text.documents(data.movies, None, data.tags) if reads else None
    model = _create(profile, name, fold, documents)
    train_part, validation, test = split.parts(sequences)
    others, moved = None, {}
    if isinstance(model, Encoded):
        others = _fit_content(model, train_part)
    elif isinstance(model, GraphRecommender | SequenceRecommender):
        model.fit(train_part, validation, others=test.histories())
        moved = _round(model, test)
    else:
        model.fit(train_part, validation)
    ranks = evaluate(model, test).ranks
    measured = {"hr@20": metrics.hit_rate(ranks, 20), "ndcg@20": metrics.ndcg(ranks, 20),
                "users": len(test)}
    settings = {"profile": profile.name, "dataset": data.name,
                "model": dict(profile.models[name])}
    return Bundle(name, model, sequences, split, settings, measured | moved,
                  provenance.facts(model.device), others)


def check(name: str, profile: Profile, fold: int) -> None:
    """Whether ``train`` can make this bundle, asked before anything is loaded or written.

    Raises:
        ValueError: the profile has no such model or fold, a bundle cannot hold it, or its weights
            are not there.
    """
    checks.whole("fold", fold, high=profile.n_folds - 1)
    chosen = profile.chosen(name)
    if chosen.parts.user or chosen.parts.base == "tfidf":
        raise ValueError(f"{name}: a bundle holds no user vectors and no sparse ones; choose "
                         f"another model, such as {', '.join(NAMES)}")
    for context, label in chosen.contexts.items():
        if label not in profile.models or profile.chosen(label).parts.base != context:
            raise ValueError(f"profile {profile.name!r} has no model {label!r} that is {context}, "
                             f"of which {name} is made; expected it among its models")
    if any(profile.chosen(m).train_share < 1 for m in (name, *chosen.contexts.values())):
        raise ValueError(f"{name}: a bundle is trained on all training users; expected settings "
                         "without a train_share")
    if reason := recommenders.missing(chosen.name):
        raise ValueError(reason)


def _create(profile: Profile, label: str, fold: int, documents: pd.Series | None) -> Any:
    """The model and its contexts, seeded as in the experiment."""
    chosen = profile.chosen(label)
    if recommenders.models_in(chosen.name)[0].trained:
        chosen.settings["seed"] = profile.seed_of(fold)
    made = {c: _create(profile, other, fold, documents) for c, other in chosen.contexts.items()}
    return recommenders.create(chosen.name, documents, made, **chosen.settings)


def _fit_content(model: Encoded, train: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Fit a content model, its vectors rounded to whole numbers up to ``COARSE``.

    Returns:
        movieIds of the films outside the catalogue, and their vectors.
    """
    movies = model.documents.index.to_numpy()
    raw = encoders.encode(model.documents, model.encoder)
    whole = np.round(COARSE * raw / np.abs(raw).max(1, keepdims=True))
    inside = np.isin(movies, train.catalogue)
    order = np.argsort(movies[inside])
    model.remember(train)
    model.keep(normalize(whole[inside][order].astype(np.float32)))
    return movies[~inside], normalize(whole[~inside].astype(np.float32))


def _round(model: Any, test: Sequences) -> dict[str, float]:
    """Round the weights to half precision; how far that moves scores and ranks of test users."""
    histories, targets = test.histories(), test.targets()
    before = model.score(histories)
    weights = {k: v.half().to(v.dtype) if v.is_floating_point() else v
               for k, v in model.model.state_dict().items()}
    model.model.load_state_dict(weights)
    after = model.score(histories)
    ranks = [metrics.target_ranks(scores, targets, histories) for scores in (before, after)]
    return {"rounding_score": float(np.abs(after - before).max()),
            "rounding_ranks": float((ranks[0] != ranks[1]).mean())}


def save(bundle: Bundle, folder: str | Path = FOLDER) -> Path:
    """Write ``<name>.safetensors`` into a folder; its weights are kept in half precision."""
    folder = files.writable(folder)
    s, fold = bundle.sequences, bundle.fold
    arrays = {"users": s.users, "items": s.items, "offsets": s.offsets, "catalogue": s.catalogue,
              "train": fold.train, "validation": fold.validation, "test": fold.test}
    # Ids of users and films may need all 64 bits; places in other arrays do not.
    wide = ("users", "catalogue")
    tensors = {f"data/{k}": torch.from_numpy(v.astype(np.int64 if k in wide else np.int32))
               for k, v in arrays.items()}
    model = bundle.recommender
    if bundle.others is not None:
        movies, vectors = bundle.others
        tensors["others/movies"] = torch.from_numpy(movies.astype(np.int64))
        for key, rows in (("others/vectors", vectors), ("model/vectors", model.vectors)):
            whole = np.round(COARSE * rows / np.abs(rows).max(1, keepdims=True))
            tensors[key] = torch.from_numpy(whole.astype(np.int8))
    elif isinstance(model, Trained):
        tensors |= {f"model/{k}": v.half().cpu().contiguous().clone() if v.is_floating_point()
                    else v.cpu() for k, v in model.model.state_dict().items()}
    meta = {"schema": SCHEMA, "name": bundle.name, "fold": fold.index,
            "leave_out": fold.leave_out,
            "settings": bundle.settings, "metrics": bundle.metrics,
            "provenance": bundle.provenance}
    path = folder / f"{bundle.name}.safetensors"
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"bundle": json.dumps(meta)})
        temporary.chmod(0o644)
    return path


def available(folder: str | Path = FOLDER) -> list[str]:
    """The names of the models in a folder, those of ``NAMES`` first."""
    found = {path.stem for path in Path(folder).glob("*.safetensors")}
    return [*(n for n in NAMES if n in found), *sorted(found - set(NAMES))]


def load(name: str, folder: str | Path = FOLDER) -> Bundle:
    """Read a bundle.

    Raises:
        FileNotFoundError: there is no such file; the message says how it is made.
        ValueError: the file is none of ``save``, or damaged; the message says what was found.
    """
    path = Path(folder) / f"{name}.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"{name} has not been trained: there are {', '.join(available(folder)) or 'none'} in "
            f"{folder}. `python -m nbrec.play.bundle {name}` trains it and puts it there")
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads(file.metadata()["bundle"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        return _bundle(name, meta, tensors)
    except Exception as error:  # whatever a file can hold, and whoever stumbles over it
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{path} is no bundle of this version ({said:.300}): delete it and run "
                         f"`python -m nbrec.play.bundle {name}`") from error


def _bundle(name: str, meta: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Bundle:
    """What a file holds, checked; all kinds of errors."""
    if meta["schema"] != SCHEMA or meta["name"] != name:
        raise ValueError(f"schema {meta['schema']!r} of {meta['name']!r}: expected {SCHEMA} of "
                         f"{name!r}")
    checks.whole("fold", meta["fold"])
    checks.choice("leave_out", meta["leave_out"], (False, True))
    for key in ("settings", "metrics", "provenance"):
        if not isinstance(meta[key], dict):
            raise ValueError(f"{key}={meta[key]!r}: expected a table")
    for key, value in meta["metrics"].items():
        checks.number(key, value)
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{key} holds numbers that are not finite")
    d = {k: v.numpy() for k, v in below("data/", tensors).items()}
    sequences = Sequences(d["users"], d["items"], d["offsets"], d["catalogue"])
    train, validation, test = (
        checks.indices(d[k], len(sequences), "user position").astype(np.int64)
        for k in ("train", "validation", "test"))
    # Without the last argument a model that is fitted anew would learn its own targets.
    fold = Fold(meta["fold"], train, validation, test, meta["leave_out"])
    _check_fold(fold)
    model, others = _restore(meta, below("model/", tensors), sequences, fold), None
    if "others/movies" in tensors:
        movies = checks.indices(tensors["others/movies"].numpy(), 2**63, "movieId")
        others = (movies.astype(np.int64), _vectors(tensors["others/vectors"], len(movies)))
    return Bundle(name, model, sequences, fold, meta["settings"], meta["metrics"],
                  meta["provenance"], others)


def _check_fold(fold: Fold) -> None:
    every = np.concatenate([fold.train, fold.validation, fold.test])
    once = len(np.unique(every)) == len(every)
    if not len(fold.train) or not len(fold.test) or not (fold.leave_out or once):
        raise ValueError(f"{len(fold.train)} users to train and {len(fold.test)} to test on: "
                         "expected some of each, and nobody in two parts")


def _vectors(tensor: torch.Tensor, n: int) -> np.ndarray:
    """float32 (n, d): content vectors of a file, of length 1."""
    if tensor.ndim != 2 or len(tensor) != n:
        raise ValueError(f"content vectors of shape {tuple(tensor.shape)}: expected {n} rows")
    return normalize(tensor.numpy().astype(np.float32)) if n else np.zeros(tensor.shape, np.float32)


def _restore(meta: dict, weights: dict[str, torch.Tensor], sequences: Sequences, fold: Fold) -> Any:
    """The fitted model of a file."""
    chosen = Chosen.read(meta["name"], meta["settings"]["model"])
    train_part, validation, test = fold.parts(sequences)
    model = recommenders.create(chosen.name, pd.Series(dtype=str), **chosen.settings)
    if not isinstance(model, ContentRecommender | Trained):
        return model.fit(train_part, validation)
    model.remember(train_part)
    if isinstance(model, ContentRecommender):
        return model.keep(_vectors(weights["vectors"], sequences.n_items))
    if isinstance(model, GraphRecommender):
        histories = [train_part[u] for u in range(len(train_part))]
        if not model.inductive:
            histories += validation.histories() + test.histories()
        model.model = model.build(Graph(histories, sequences.n_items), **model.settings)
    else:
        model.model = model.build(sequences.n_items, **model.settings)
        if chosen.parts.items:
            width = model.model.embedding.embedding_dim
            frozen = {c: weights[f"early.frozen_{c}"] for c in chosen.parts.items}
            for context, rows in frozen.items():
                if rows.ndim != 2 or len(rows) != sequences.n_items:
                    raise ValueError(f"vectors of {context} of shape {tuple(rows.shape)}: expected "
                                     f"{sequences.n_items} rows")
            model.model.early = EarlyFusion(frozen, width)
    model.model.load_state_dict({k: v.float() for k, v in weights.items()})
    model.model.eval()
    model.curve = LearningCurve()
    return model


def films(folder: str | Path = FOLDER) -> pd.DataFrame:
    """All films of the embedded data: movieId, title (as MovieLens writes it), genres."""
    return pd.read_csv(Path(folder) / FILMS, keep_default_na=False)


def main(arguments: list[str] | None = None) -> None:
    """Train models and write their bundles; the films of the data beside them."""
    parser = argparse.ArgumentParser(prog="python -m nbrec.play.bundle",
                                     description="Train models and write their bundles.")
    parser.add_argument("names", nargs="*", default=NAMES, help=f"default: {' '.join(NAMES)}")
    parser.add_argument("--profile", default="sample")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    chosen = parser.parse_args(arguments)
    try:
        profile = get_profile(chosen.profile)
        for name in chosen.names:
            check(name, profile, chosen.fold)
    except ValueError as error:
        parser.error(" ".join(str(error).split()))
    dataset = profile.dataset
    if dataset != EMBEDDED and chosen.folder == FOLDER:
        parser.error(f"--profile {chosen.profile} uses {dataset}, which may not be passed on with "
                     f"the project as {FOLDER} is: name another --folder")
    try:
        files.writable(chosen.folder)
        data = movielens.load(dataset)
        if data.movies is not None:
            table = data.movies[["movieId", "title", "genres"]].to_csv(
                index=False, lineterminator="\n")
            with atomic(chosen.folder / FILMS) as temporary:
                temporary.write_bytes(gzip.compress(table.encode(), mtime=0))
        for name in dict.fromkeys(chosen.names):
            bundle = train(name, profile, chosen.fold, data)
            path = save(bundle, chosen.folder)
            print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, "
                  + ", ".join(f"{k} {v:.4g}" for k, v in bundle.metrics.items()), flush=True)
    except (ValueError, FileNotFoundError) as error:
        parser.error(" ".join(str(error).split()))


if __name__ == "__main__":
    # Imported by name, so that classes are those of the package.
    from nbrec.play.bundle import main as run_from_terminal

    run_from_terminal()
