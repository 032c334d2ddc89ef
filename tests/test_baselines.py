"""Scores of the yardsticks; their parameters are tested with the other classical models."""

import numpy as np
import pytest

from nbrec.models.baselines import EASE, MarkovChain, Popularity
from nbrec.models.item_knn import ItemKNN
from nbrec.models.sparse import history_matrix, interactions
from nbrec.models.svd import SVD
from nbrec.models.user_knn import UserKNN
from nbrec.sequences import Sequences

TRAIN = Sequences(np.arange(4), np.array([0, 1, 2, 0, 1, 2, 3, 3, 1, 3], np.int32),
                  np.array([0, 3, 5, 8, 10]), np.arange(5))


def test_interactions_by_hand():
    """A repeat counts once, and every user has a row."""
    expected = [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 1, 0, 1, 0]]
    assert interactions(TRAIN).toarray().tolist() == expected
    assert history_matrix([np.array([3, 3, 0]), np.array([], int)], 5, empty=True).toarray(
        ).tolist() == [[1, 0, 0, 1, 0], [0] * 5]


def test_popularity_by_hand():
    assert Popularity().fit(TRAIN).score([np.array([0])] * 2).tolist() == [[2, 3, 2, 2, 0]] * 2


def test_ease_scores_are_sums_of_rows():
    model = EASE(l2=0.5).fit(TRAIN)
    scores = model.score([np.array([2, 0]), np.array([3])])
    assert scores[0] == pytest.approx(model.weights[2] + model.weights[0], abs=1e-6)
    assert scores[1] == pytest.approx(model.weights[3], abs=1e-6)
    assert np.abs(model.weights - model.weights.T).max() > 0.01  # so rows are not columns


def test_markov_counts_no_pair_across_two_users():
    model = MarkovChain(smoothing=1.0).fit(TRAIN)
    pairs = {(0, 1): 2, (1, 2): 1, (2, 3): 1, (3, 3): 1, (1, 3): 1}
    assert {(i, j): c for i, row in enumerate(model.counts.toarray())
            for j, c in enumerate(row) if c} == pairs
    scores = model.score([np.array([0, i]) for i in range(5)])
    assert scores.sum(1) == pytest.approx(np.ones(5), abs=1e-6)
    assert scores[4] == pytest.approx(np.array([2, 3, 2, 3, 0]) / 10)  # never seen: popularity


def test_what_is_usual():
    """A reader who names no setting gets these."""
    assert MarkovChain().smoothing == 10 and EASE().l2 == 250
    assert UserKNN().neighbours == 50 and (SVD().rank, SVD().seed) == (50, 0)
    assert (ItemKNN().last_n, ItemKNN().neighbours) == (None, None)


MODELS = [Popularity, MarkovChain, EASE, ItemKNN, UserKNN, lambda: SVD(2)]


@pytest.mark.parametrize("make", MODELS)
def test_scores_are_float32_and_come_after_fitting_only(make):
    with pytest.raises(RuntimeError, match="call fit first"):
        make().score([np.array([0])])
    scores = make().fit(TRAIN).score([np.array([0, 2]), np.array([3])])
    assert scores.dtype == np.float32 and scores.shape == (2, 5) and scores.any()


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("history", [[], [5], [-1], [0.5]])
def test_what_is_no_history_is_refused(make, history):
    with pytest.raises(ValueError, match="history 1"):
        make().fit(TRAIN).score([np.array([0]), np.array(history)])


@pytest.mark.parametrize("last_n", [1, 2, 3])
def test_the_last_items_of_a_history_by_hand(last_n):
    histories = [np.array([4, 0, 1]), np.array([2]), np.array([3, 3])]
    expected = np.zeros((3, 5))
    for u, history in enumerate(histories):
        expected[u, history[-last_n:]] = 1
    assert np.array_equal(history_matrix(histories, 5, last_n).toarray(), expected)


def test_ease_weighs_with_its_penalty():
    """Two users of one pair of items: P = (X'X + l2 I)^-1 = [[3, -2], [-2, 3]] / 5 for l2 = 1."""
    train = Sequences(np.arange(2), np.array([0, 1, 0, 1], np.int32), np.array([0, 2, 4]),
                      np.arange(2))
    assert EASE(l2=1.0).fit(train).weights == pytest.approx(np.array([[0, 2 / 3], [2 / 3, 0]]),
                                                            abs=1e-6)
