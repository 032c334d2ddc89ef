"""Item-KNN and the yardsticks against hand-worked and dense twins."""

import numpy as np
import pytest

from nbrec.evaluate import evaluate, top_items
from nbrec.models.baselines import EASE, MarkovChain, Popularity
from nbrec.models.item_knn import ItemKNN
from nbrec.sequences import Sequences


def sequences(*users, n_items=None):
    items = np.concatenate([np.array(u, dtype=np.int32) for u in users])
    offsets = np.concatenate(([0], np.cumsum([len(u) for u in users])))
    return Sequences(np.arange(len(users)), items, offsets, np.arange(n_items or items.max() + 1))


def random_sequences(seed=0, users=40, items=15):
    rng = np.random.default_rng(seed)
    return sequences(*[rng.permutation(items)[: rng.integers(3, 9)] for _ in range(users)],
                     n_items=items)


def dense(train):
    matrix = np.zeros((len(train), train.n_items))
    for u in range(len(train)):
        matrix[u, train[u]] = 1
    return matrix


def test_example_of_the_thesis():
    """Thesis Example 3.2: the printed matrix and recommendations."""
    train = sequences([1], [0, 1], [2], [0, 1, 2])
    model = ItemKNN().fit(train)
    printed = [[1, 0.82, 0.5], [0.82, 1, 0.41], [0.5, 0.41, 1]]
    assert np.allclose(model.similarities.toarray(), printed, atol=0.005)
    scores = model.score([np.array([0, 1]), np.array([2])])
    assert np.allclose(scores, [[1.82, 1.82, 0.91], [0.5, 0.41, 1.0]], atol=0.01)
    best = top_items(scores, 2, [np.array([0, 1]), np.array([2])])
    assert best[0, 0] == 2 and best[1].tolist() == [0, 1]


def test_item_knn_equals_its_dense_twin():
    train = random_sequences()
    m = dense(train)
    s = m.T @ m / np.sqrt(np.outer(m.sum(0), m.sum(0)))
    model = ItemKNN().fit(train)
    assert np.allclose(model.similarities.toarray(), s, atol=1e-6)
    histories = train.histories()
    assert np.allclose(model.score(histories), [s[h].sum(0) for h in histories], atol=1e-5)
    last = ItemKNN(last_n=2).fit(train).score(histories)
    assert np.allclose(last, [s[h[-2:]].sum(0) for h in histories], atol=1e-5)


def test_shrinkage_stands_in_the_denominator():
    train = random_sequences()
    m = dense(train)
    s = m.T @ m / (np.sqrt(np.outer(m.sum(0), m.sum(0))) + 3)
    found = ItemKNN(shrinkage=3).fit(train).similarities.toarray()
    assert np.allclose(found, s, atol=1e-6) and found.std() > 0.01


def test_neighbours_keep_the_most_similar_voters():
    train = random_sequences(1)
    m = dense(train)
    s = m.T @ m / np.sqrt(np.outer(m.sum(0), m.sum(0)))
    cut = ItemKNN(neighbours=3).fit(train).similarities.toarray()
    for j in range(train.n_items):
        others = np.delete(s[:, j], j)
        kept = np.delete(cut[:, j], j)
        assert cut[j, j] == pytest.approx(1)
        assert (kept > 0).sum() <= 3
        assert np.sort(kept)[-3:] == pytest.approx(np.sort(others)[-3:], abs=1e-6)


def test_markov_by_hand():
    train = sequences([0, 1, 2], [0, 1], [0, 2], n_items=4)
    p = MarkovChain(smoothing=2.0).fit(train).score([np.array([3, 0])])[0]
    shares = np.array([3, 2, 2, 0]) / 7
    expected = (np.array([0, 2, 1, 0]) + 2 * shares) / 5
    assert p == pytest.approx(expected, rel=1e-6) and p.sum() == pytest.approx(1)


def test_ease_equals_a_ridge_regression_per_item():
    train = random_sequences(2)
    x, model = dense(train), EASE(l2=3.0).fit(train)
    for j in range(train.n_items):
        others = np.delete(np.arange(train.n_items), j)
        a = x[:, others]
        weights = np.linalg.solve(a.T @ a + 3.0 * np.eye(len(others)), a.T @ x[:, j])
        assert model.weights[others, j] == pytest.approx(weights, abs=1e-4)
        assert model.weights[j, j] == 0


def test_popularity_recommends_what_most_have_seen():
    train = sequences([0, 1], [1, 2], [1, 1])
    assert Popularity().fit(train).score([np.array([0])]).tolist() == [[1, 3, 1]]


@pytest.mark.parametrize("make", [lambda: ItemKNN(last_n=0), lambda: ItemKNN(neighbours=0),
                                  lambda: EASE(l2=0), lambda: MarkovChain(smoothing=0)])
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()


def test_evaluation_does_not_depend_on_the_batch():
    train = random_sequences(3)
    model = ItemKNN().fit(train)
    one, all_ = (evaluate(model, train, top_k=4, batch_size=b) for b in (1, 256))
    assert one.ranks.tolist() == all_.ranks.tolist()
    assert one.recommended.tolist() == all_.recommended.tolist()
    for history, best in zip(train.histories(), all_.recommended, strict=True):
        assert not set(history) & set(best)
    free = evaluate(model, train, mask_seen=False)
    assert (free.ranks >= all_.ranks).all() and (free.ranks > all_.ranks).any()


def test_top_items_equal_a_full_sort():
    scores = np.random.default_rng(4).random((5, 30))
    assert top_items(scores, 7).tolist() == np.argsort(-scores, 1)[:, :7].tolist()


def test_wrong_shapes_of_scores_are_refused():
    class Wrong:
        def score(self, histories):
            return np.zeros((len(histories), 2))

    with pytest.raises(ValueError, match="Wrong.score gave"):
        evaluate(Wrong(), random_sequences())
