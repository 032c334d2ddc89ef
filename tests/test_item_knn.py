"""Item-KNN where the data are awkward: unseen items, repeats, many threads."""

import numpy as np
import pytest
from scipy import sparse

from nbrec.models.item_knn import ItemKNN
from nbrec.models.sparse import product
from nbrec.sequences import Sequences


def data(seed=0, users=30, n_items=14, used=11):
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(used)[: rng.integers(2, 7)] for _ in range(users)]
    offsets = np.concatenate(([0], np.cumsum([len(p) for p in parts])))
    return Sequences(np.arange(users), np.concatenate(parts).astype(np.int32), offsets,
                     np.arange(n_items))


def test_similarities_are_cosines():
    s = ItemKNN().fit(data()).similarities.toarray()
    assert np.array_equal(s, s.T)
    assert np.diag(s)[:11] == pytest.approx(np.ones(11), abs=1e-6)
    assert s.min() >= 0 and s.max() <= 1 + 1e-6 and (s[:11, :11] < 0.99).sum() > 50


def test_items_that_nobody_watched_score_nothing():
    model = ItemKNN().fit(data())
    assert (model.similarities.toarray()[11:] == 0).all()
    scores = model.score([np.array([12]), np.array([0, 12])])
    assert (scores[0] == 0).all() and np.isfinite(scores).all()
    assert np.array_equal(scores[1], model.score([np.array([0])])[0])


def test_an_item_watched_twice_counts_once():
    model = ItemKNN().fit(data())
    twice, once = model.score([np.array([3, 1, 3]), np.array([1, 3])])
    assert twice == pytest.approx(once) and once.max() > 0.1


def test_a_wide_cut_cuts_nothing():
    whole, wide = (ItemKNN(neighbours=k).fit(data()).similarities.toarray() for k in (None, 14))
    assert np.array_equal(whole, wide)
    narrow = ItemKNN(neighbours=1).fit(data()).similarities.toarray()
    assert (narrow > 0).sum() == 2 * 11  # itself and one other


@pytest.mark.parametrize("threads", [1, 3, 64])
@pytest.mark.parametrize("dense", [True, False])
def test_threads_do_not_change_a_product(monkeypatch, threads, dense):
    monkeypatch.setattr("nbrec.models.sparse.os.cpu_count", lambda: threads)
    a, b = (sparse.random_array(shape, density=0.2, format="csr", dtype=np.float64,
                                rng=np.random.default_rng(seed))
            for seed, shape in enumerate([(17, 9), (9, 5)]))
    result = product(a, b, dense)
    plain = a.toarray() @ b.toarray()
    assert np.allclose(result if dense else result.toarray(), plain, atol=1e-12)
    assert np.abs(plain).max() > 0.1


@pytest.mark.parametrize("last_n", [None, 1, 3])
@pytest.mark.parametrize("neighbours", [None, 2])
def test_contributions_add_up_to_the_score(last_n, neighbours):
    model = ItemKNN(last_n, neighbours).fit(data())
    s = model.similarities.toarray()
    for history in ([3, 1, 3, 0, 12], [5], [2, 2, 2], [7, 6, 5, 4, 3]):
        scores = model.score([np.array(history)])[0]
        for item in (0, 3, 9, 12):
            parts = model.contributions(np.array(history), item)
            assert parts.sum() == pytest.approx(scores[item], abs=1e-6)
            assert parts.dtype == np.float32 and parts.shape == (len(history),)
            for place, seen in enumerate(history):  # once, at its last place
                late = last_n is None or place >= len(history) - last_n
                counts = late and seen not in history[place + 1 :]
                assert parts[place] == pytest.approx(s[seen, item] * counts)
    assert scores.max() > 0.1 and scores.dtype == np.float32


def test_equal_similarities_keep_the_items_that_come_first():
    parts = [[0, 1], [0, 2], [0, 3]]  # 1, 2 and 3 are alike to 0
    train = Sequences(np.arange(3), np.concatenate(parts).astype(np.int32), np.array([0, 2, 4, 6]),
                      np.arange(4))
    cut = ItemKNN(neighbours=2).fit(train).similarities.toarray()
    assert np.flatnonzero(cut[:, 0]).tolist() == [0, 1, 2]


def test_nobody_has_no_scores():
    assert ItemKNN().fit(data()).score([]).shape == (0, 14)
