"""User-KNN against numbers worked by hand and a dense twin."""

import numpy as np
import pytest

from nbrec.models.user_knn import UserKNN
from nbrec.sequences import Sequences


def sequences(*users, n_items):
    offsets = np.concatenate(([0], np.cumsum([len(u) for u in users])))
    return Sequences(np.arange(len(users)), np.concatenate(users).astype(np.int32), offsets,
                     np.arange(n_items))


def test_by_hand():
    """Similarities of history (0, 1): 2/(sqrt 2 sqrt 4), 1/(sqrt 2 sqrt 1), 0."""
    train = sequences([0, 1, 2, 3], [1], [2, 3], n_items=5)
    w = [1 / 2**0.5, 1 / 2**0.5, 0]
    scores = UserKNN().fit(train).score([np.array([0, 1])])
    assert scores[0] == pytest.approx([w[0], w[0] + w[1], w[0], w[0], 0], abs=1e-6)
    first = UserKNN(neighbours=1).fit(train).score([np.array([0, 1])])  # of two alike, the first
    assert first[0] == pytest.approx([w[0]] * 4 + [0], abs=1e-6)


@pytest.mark.parametrize(("k", "shrinkage"), [(1, 0), (5, 0), (60, 0), (5, 2.0)])
def test_equals_a_dense_twin(k, shrinkage):
    rng = np.random.default_rng(0)
    train = sequences(*[rng.permutation(15)[: rng.integers(3, 9)] for _ in range(40)], n_items=15)
    m = np.zeros((40, 15))
    for u in range(40):
        m[u, train[u]] = 1
    histories = train.histories()
    expected = []
    for history in histories:
        h = np.zeros(15)
        h[history] = 1
        w = m @ h / (np.sqrt(m.sum(1) * h.sum()) + shrinkage)
        near = np.argsort(-w.round(6), kind="stable")[:k]
        expected.append(w[near] @ m[near])
    found = UserKNN(k, shrinkage).fit(train).score(histories)
    assert found == pytest.approx(np.array(expected), abs=1e-5) and found.std() > 0.1


def test_a_history_like_nobodys_scores_nothing():
    model = UserKNN().fit(sequences([0, 1], [1, 2], n_items=5))
    assert (model.score([np.array([4])]) == 0).all()


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="neighbours=0"):
        UserKNN(neighbours=0)
