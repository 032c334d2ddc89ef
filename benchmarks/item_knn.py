"""Seconds of Item-KNN at the size of the thesis's Table 5.1, against the plain one-liner.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/item_knn.py

12,839 users, 13,318 films, about 756,000 interactions; nine tenths of the users are fitted, the
others' histories scored. `plain` multiplies the same sparse matrices with one call of scipy each.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from transformer import ITEMS, synthetic_sequences

from nbrec.book.growth import peak_megabytes
from nbrec.models.item_knn import ItemKNN
from nbrec.models.sparse import history_matrix, interactions

USERS, TEST_USERS, ROUNDS = 12_839, 1_284, 5


def plain(train, histories) -> np.ndarray:
    """Item-KNN in four lines of scipy."""
    m = interactions(train)
    m.data /= np.sqrt(np.bincount(m.indices, minlength=train.n_items))[m.indices].astype(np.float32)
    similarities = m.T.tocsr() @ m
    return (history_matrix(histories, train.n_items) @ similarities).toarray()


def main() -> None:
    data = synthetic_sequences(USERS, ITEMS)
    train = data.select(np.arange(USERS - TEST_USERS))
    histories = data.select(np.arange(USERS - TEST_USERS, USERS)).histories()
    times: dict[str, list[float]] = {"fit": [], "score": [], "plain": []}
    before = peak_megabytes()
    for _ in range(ROUNDS):
        began = time.perf_counter()
        model = ItemKNN().fit(train)
        fitted = time.perf_counter()
        scores = model.score(histories)
        done = time.perf_counter()
        times["fit"].append(fitted - began)
        times["score"].append(done - fitted)
        memory = peak_megabytes() - before
        expected = plain(train, histories)
        times["plain"].append(time.perf_counter() - done)
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    middle = {name: statistics.median(values) for name, values in times.items()}
    both = middle["fit"] + middle["score"]
    print(f"{len(train.items):,} interactions, {model.similarities.nnz:,} similarities, median of "
          f"{ROUNDS}: fit {middle['fit']:.2f} s, score {middle['score']:.2f} s "
          f"({TEST_USERS / middle['score']:,.0f} users/s), together {both:.2f} s; plain scipy "
          f"{middle['plain']:.2f} s, {middle['plain'] / both:.2f} times as long; "
          f"peak {memory:.0f} MB over start")


if __name__ == "__main__":
    main()
