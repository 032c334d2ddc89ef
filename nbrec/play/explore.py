"""What one asks of a trained model: recommendations, reasons, and films that are alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.preprocessing import normalize

from nbrec import checks, metrics
from nbrec.evaluate import top_items
from nbrec.models.item_knn import ItemKNN
from nbrec.models.next_item import evaluating
from nbrec.models.transformer import TransformerBlock
from nbrec.models.user_knn import UserKNN
from nbrec.play.bundle import Bundle
from nbrec.trained import SequenceRecommender

SILENT = 1e-9  # scores up to here are 0 but for rounding
K, MOST = 12, 50  # recommendations that are shown: usually, and at most
REASONS = 8  # films of the history that are shown as reasons
HOW = {
    "contributions": "how much each film of the history adds to the score",
    "attention": "how much the last position attends to each film (last layer, mean of the heads)",
    "left out": "how much the score falls when the film is left out of the history",
}
SAID = {  # of an answer; the page and the app say the same
    "empty": "The history is empty. So these are popular films, those that most users have seen.",
    "popular": "{} knows no film of this history. So these are popular films, those that most "
               "users have seen.",
    "content": "{} knows no film of this history. So these are films of similar content: {} reads "
               "titles, genres and tags.",
    "few": "{} has something to say of {} films only.",
    "attention": "Attention says where the model looked, not what it made of it. It is the same "
                 "for every recommended film.",
}


def rules() -> dict[str, object]:
    """What the page shows and says as the app does (JSON)."""
    return {"k": K, "most": MOST, "reasons": REASONS, "how": HOW, "said": SAID}


def recommend(bundle: Bundle, history: np.ndarray, k: int = K, hide_seen: bool = True
              ) -> pd.DataFrame:
    """The k best next films after a history.

    Args:
        history: int (L,), catalogue indices, oldest first. After an empty one, or one of which the
            model knows nothing, the most popular films are recommended.
        k: how many, at least 1; there are fewer if the model has nothing to say of the others.
        hide_seen: whether films of the history are left out.

    Returns:
        item (catalogue index), movieId, score, confidence; best first. Confidences are the softmax
        of the scores of these k films alone, so they sum to 1 (thesis section 5.2). Popular films
        are no model's: their score is the share of the training users who have seen them, in per
        mille, and their confidence NaN.

    Raises:
        ValueError: k is below 1, or an index is not in the catalogue.
    """
    return _answer(bundle, _checked(bundle, history), k, hide_seen, None, np.empty(0, int))[0]


def suggest(bundle: Bundle, movies: Iterable[int], k: int = K, hide_seen: bool = True,
            content: Bundle | None = None) -> tuple[pd.DataFrame, str]:
    """The k best next films after any films, a cold start included (thesis section 5.2.1).

    Args:
        movies: movieIds, oldest first; those outside the catalogue are passed over if the model
            knows others.
        k, hide_seen: as in ``recommend``.
        content: a content model, for histories of which the model knows nothing.

    Returns:
        as ``recommend``, and what did it: "model"; "content", if the model knows none of the films
        but the content model does (the score is a cosine then, and the confidence NaN); or
        "popular", if nothing is known of the user.

    Raises:
        ValueError: k is below 1, or the movieIds are no list of whole numbers.
    """
    history, unknown = bundle.indices(movies)
    return _answer(bundle, history, k, hide_seen, content, unknown)


def _answer(bundle: Bundle, history: np.ndarray, k: int, hide_seen: bool,
            content: Bundle | None, unknown: np.ndarray) -> tuple[pd.DataFrame, str]:
    seen = history if hide_seen else history[:0]
    if len(history):
        scores = bundle.recommender.score([history])[0]
        spoken = _spoken(bundle.recommender, history, scores)
        spoken[seen] = False
        if spoken.any():
            return _best(scores, bundle.catalogue, spoken, k), "model"
    others = np.ones(len(bundle.catalogue), bool)
    others[seen] = False
    scores, how = _by_content(content, bundle, history, unknown), "content"
    if scores is None:
        scores, how = bundle.popularity, "popular"
    return _best(scores, bundle.catalogue, others, k).assign(confidence=np.nan), how


def _spoken(model: Any, history: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """bool (V,): the films of which a model has an opinion after a history."""
    finite = np.isfinite(scores)
    # A sum of similarities that is 0 is no opinion: nobody has seen both films.
    if isinstance(model, ItemKNN | UserKNN):
        return finite & (scores > 0)
    # Elsewhere a score of 0 or less may be one, but not where it is that of all new films.
    new = finite.copy()
    new[history] = False
    return finite & (not new.any() or np.abs(scores[new]).max() > SILENT)


def _by_content(content: Bundle | None, bundle: Bundle, history: np.ndarray, unknown: np.ndarray
                ) -> np.ndarray | None:
    """Cosines of the catalogue to films of which a model knows nothing; None if nothing is known
    of their content either."""
    if content is None or content.others is None or not np.array_equal(content.catalogue,
                                                                       bundle.catalogue):
        return None
    ids, vectors = content.others
    rows = [content.recommender.vectors[i] for i in history]
    rows += [vectors[ids == movie][0] for movie in unknown if movie in ids]
    mean = np.mean(rows, 0) if rows else np.zeros(1)
    return content.recommender.vectors @ normalize(mean[None])[0] if mean.any() else None


def _checked(bundle: Bundle, history: np.ndarray) -> np.ndarray:
    return checks.histories([history], len(bundle.catalogue), empty=True)[0].astype(np.int64)


def _one(name: str, value: Any, n: int) -> int:
    """A single catalogue index of n, checked."""
    checks.whole(name, value, high=n - 1)
    return int(value)


def _best(scores: np.ndarray, catalogue: np.ndarray, allowed: np.ndarray, k: int) -> pd.DataFrame:
    """The k best of the films that are allowed, bool (V,); fewer if there are fewer."""
    checks.whole("k", k, low=1)
    k = min(k, int(allowed.sum()))
    if not k:
        return pd.DataFrame({"item": np.empty(0, int), "movieId": np.empty(0, int),
                             "score": np.empty(0), "confidence": np.empty(0)})
    best = top_items(scores[None], k, [np.flatnonzero(~allowed)])[0].astype(np.int64)
    found = np.asarray(scores, np.float32)[best].astype(float)
    share = np.exp(found - found.max())
    return pd.DataFrame({"item": best, "movieId": catalogue[best], "score": found,
                         "confidence": share / share.sum()})


def rank(bundle: Bundle, history: np.ndarray, target: int, hide_seen: bool = True) -> int:
    """The rank of a film after a history, 1 is best; ties count against it.

    Args:
        history: int (L,), catalogue indices, L >= 1.
        target: catalogue index of the film.

    Raises:
        ValueError: an index is not in the catalogue, or the history is empty.
    """
    history, target = _checked(bundle, history), _one("target", target, len(bundle.catalogue))
    scores = bundle.recommender.score([history])
    return int(metrics.target_ranks(scores, np.array([target]),
                                    [history] if hide_seen else None)[0])


def explain(bundle: Bundle, history: np.ndarray, item: int) -> tuple[pd.DataFrame, str]:
    """Which films of the history a recommendation comes from.

    Item-KNN is a sum, so its explanation is exact. Attention says where a Transformer looked, not
    what it concluded, and says the same of every film it recommends. The others are asked again
    without each film in turn.

    Args:
        history: int (L,), L >= 1.
        item: catalogue index of the recommended film.

    Returns:
        item, weight, one row per film of the history that the model sees, in its order; and a key
        of ``HOW``, what the weights are.

    Raises:
        ValueError: the history is empty, or an index is not in the catalogue.
    """
    history = _checked(bundle, history)
    if not len(history):
        raise ValueError("an empty history explains nothing: give at least one film")
    model = bundle.recommender
    network = model.model if isinstance(model, SequenceRecommender) else None
    item = _one("item", item, len(bundle.catalogue))
    if isinstance(model, ItemKNN):
        weights, how = model.contributions(history, item), "contributions"
    else:
        history = history if network is None else history[-network.max_length:]
        if network is not None and isinstance(network.blocks[-1], TransformerBlock):
            weights, how = attention(network, history), "attention"
        else:
            weights, how = _left_out(model, history, item), "left out"
    return pd.DataFrame({"item": history, "weight": weights.astype(float)}), how


@torch.inference_mode()
def attention(network: Any, history: np.ndarray) -> np.ndarray:
    """float32 (L,): what the last block attends to from the last position, mean of the heads."""
    items = torch.from_numpy(history.astype(np.int64))[None].to(network.embedding.weight.device)
    with evaluating(network):
        return network.with_attention(items)[1][0, :, -1].mean(0).cpu().numpy()


def _left_out(model: Any, history: np.ndarray, item: int) -> np.ndarray:
    """How much the score falls without each film; without any, it is the mean over all films."""
    whole = model.score([history])[0]
    if len(history) == 1:
        return np.array([whole[item] - whole.mean()])
    without = model.score([np.delete(history, i) for i in range(len(history))])
    return whole[item] - without[:, item]


def random_test_user(bundle: Bundle, seed: int) -> tuple[int, np.ndarray, int]:
    """A test user: the position in ``sequences``, the history int (L,), and the true next film.

    Raises:
        ValueError: the seed is no whole number of 0 or more.
    """
    checks.whole("seed", seed)
    user = int(np.random.default_rng(seed).choice(bundle.fold.test))
    sequence = bundle.sequences[user].astype(np.int64)
    return user, sequence[:-1], int(sequence[-1])


def random_genre_history(bundle: Bundle, films: pd.DataFrame, genre: str, length: int = 12,
                         seed: int = 0) -> np.ndarray:
    """A made-up history of one genre: films drawn without repetition, popular ones more often.

    Args:
        films: movieId, genres.
        genre: as MovieLens writes it, such as "Horror".
        length: how many films, at least 1.
        seed: of the draw, 0 or more.

    Returns:
        int64 (length,), fewer if the genre has fewer films.

    Raises:
        ValueError: no film of the catalogue has this genre, the table of films has other columns,
            or a number is out of range.
    """
    checks.whole("length", length, low=1)
    checks.whole("seed", seed)
    if missing := [c for c in ("movieId", "genres") if c not in getattr(films, "columns", ())]:
        raise ValueError(f"films without {' and '.join(missing)}: expected a table with the "
                         "columns movieId and genres, such as `bundle.films()`")
    films = films.drop_duplicates("movieId")
    genres = films.set_index("movieId")["genres"].reindex(bundle.catalogue)
    genres = genres.fillna("").str.split("|")
    items = np.flatnonzero([genre in found for found in genres])
    if not len(items):
        known = sorted({g for found in genres for g in found} - {"", "(no genres listed)"})
        raise ValueError(f"no film has the genre {genre!r}; expected one of {', '.join(known)}")
    chance = bundle.popularity[items] + 1e-3
    return np.random.default_rng(seed).choice(
        items, min(length, len(items)), replace=False, p=chance / chance.sum())
