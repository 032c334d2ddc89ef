"""Cosines of content, by hand."""

import numpy as np
import pytest
from scipy import sparse

from nbrec.models.content import Content

VECTORS = np.array([[3, 0, 0], [0, 2, 0], [1, 1, 0], [0, 0, 0], [0, 0, -1]], np.float32)


def test_scores_are_cosines_to_the_mean_of_unit_vectors():
    # films 0 and 1 point along the axes: their mean points between them, where film 2 lies
    found = Content(VECTORS).score([np.array([0, 1]), np.array([0]), np.array([4])])
    half = np.sqrt(0.5)
    assert found == pytest.approx(np.array([[half, half, 1, 0, 0], [1, 0, half, 0, 0],
                                            [0, 0, 0, 0, 1]]), abs=1e-6)


def test_last_n_leaves_older_films_out():
    history = [np.array([4, 0, 1])]
    assert (Content(VECTORS, last_n=2).score(history) == Content(VECTORS).score([history[0][1:]])
            ).all()
    assert (Content(VECTORS, last_n=2).score(history) != Content(VECTORS).score(history)).any()


def test_sparse_vectors_score_as_dense_ones():
    rng = np.random.default_rng(0)
    vectors = (rng.random((30, 50)) * (rng.random((30, 50)) < 0.2)).astype(np.float32)
    histories = [rng.choice(30, n, replace=False) for n in (1, 4, 9)]
    dense = Content(vectors).score(histories)
    found = Content(sparse.csr_array(vectors)).score(histories)
    assert isinstance(found, np.ndarray) and found == pytest.approx(dense, abs=1e-6)
    plain = np.array([[sum(vectors[i] / np.linalg.norm(vectors[i]) for i in h) @ vectors[j]
                       / np.linalg.norm(sum(vectors[i] / np.linalg.norm(vectors[i]) for i in h))
                       / np.linalg.norm(vectors[j]) for j in range(30)] for h in histories])
    assert dense == pytest.approx(plain, abs=1e-5)


def test_of_unknown_films_nothing_follows():
    scores = Content(VECTORS).score([np.array([3]), np.array([3, 0])])
    assert not scores[0].any() and scores[1] == pytest.approx([1, 0, np.sqrt(0.5), 0, 0], abs=1e-6)


def test_a_user_is_the_mean_of_unit_vectors():
    """A late fusion reads this vector itself, so its length counts, unlike in a cosine."""
    histories = [np.array([0, 1]), np.array([2]), np.array([0, 1, 2, 3])]
    half = np.sqrt(0.5)
    expected = np.array([[1 / 2, 1 / 2, 0], [half, half, 0],
                         [(1 + half) / 4, (1 + half) / 4, 0]])  # film 3 is a part, but of zeros
    for vectors in (VECTORS, sparse.csr_array(VECTORS)):
        users = Content(vectors).users(histories)
        users = users.toarray() if sparse.issparse(users) else users
        assert users == pytest.approx(expected, abs=1e-6)
