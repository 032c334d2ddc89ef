"""The space in which a model has put the films: their vectors and which are near (thesis 5.2)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from sklearn.preprocessing import normalize

from nbrec import checks
from nbrec.evaluate import top_items
from nbrec.models.next_item import evaluating
from nbrec.models.recommender import Context
from nbrec.play.bundle import Bundle
from nbrec.trained import SequenceRecommender

MAX_SEED = 2**32 - 1  # networkx takes no larger one


def vectors(bundle: Bundle) -> np.ndarray:
    """float32 (V, d): the vector of each film of the catalogue.

    Content and graph models: what a hybrid gets of them. Sequence models: what enters the first
    block, in a hybrid after the fusion.

    Raises:
        ValueError: the model has no vectors of films.
    """
    model = bundle.recommender
    if isinstance(model, Context):
        return model.item_vectors().cpu().numpy()
    if isinstance(model, SequenceRecommender):
        network = model.model
        items = torch.arange(len(bundle.catalogue), device=network.embedding.weight.device)
        with torch.inference_mode(), evaluating(network):
            return network.item_vectors(items).cpu().numpy()
    raise ValueError(f"{bundle.name} has no vectors of films; expected a content, graph or "
                     "sequence model")


def neighbours(vectors: np.ndarray, item: int, k: int = 12) -> pd.DataFrame:
    """The k nearest films by cosine similarity (thesis eq. 3.1): item, cosine, nearest first.

    Args:
        vectors: float (V, d), a row for each film.
        item: the film, 0..V-1.
        k: how many, at least 1; there are fewer if there are fewer films.

    Raises:
        ValueError: the vectors are no such table or not finite, there is no such film, or k is
            below 1.
    """
    unit = normalize(vectors)
    checks.whole("item", item, high=len(unit) - 1)
    checks.whole("k", k, low=1)
    cosines = unit @ unit[item]
    others = np.delete(np.arange(len(unit)), item)
    best = others[top_items(cosines[None, others], min(k, len(others)))[0]] if len(others) else (
        others)
    return pd.DataFrame({"item": best.astype(np.int64), "cosine": cosines[best].astype(float)})


def layout(vectors: np.ndarray, item: int, k: int = 12, seed: int = 0) -> np.ndarray:
    """Where a film and its k nearest stand in space (thesis section 5.2).

    Directions are those of Fruchterman and Reingold (1991): films pull each other by their cosine,
    with the film in the middle held fast. The distance from the middle is 1 - cosine.

    Args:
        vectors, item, k: as in ``neighbours``.
        seed: of the places that the forces start from, 0 to 2^32 - 1.

    Returns:
        float64 (k + 1, 3), the film itself at the origin first, then in the order of
        ``neighbours``.

    Raises:
        ValueError: as ``neighbours``, or the seed is no such number.
    """
    checks.whole("seed", seed, high=MAX_SEED)
    import networkx as nx

    near = neighbours(vectors, item, k)
    chosen = normalize(vectors[[item, *near["item"]]])
    pull = np.maximum(chosen @ chosen.T, 0)
    np.fill_diagonal(pull, 0)
    graph = nx.from_numpy_array(pull)
    start = np.random.default_rng(seed).normal(size=(len(chosen), 3))
    start[0] = 0
    found = nx.spring_layout(graph, dim=3, pos=dict(enumerate(start)), fixed=[0], seed=seed)
    places = np.array([found[i] for i in range(len(chosen))]) - found[0]
    lengths = np.linalg.norm(places[1:], axis=1, keepdims=True)
    away = np.maximum(1 - near["cosine"].to_numpy(), 1e-3)[:, None]
    places[1:] *= away / np.maximum(lengths, 1e-9)
    return places
