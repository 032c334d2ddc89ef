"""Scores of the yardsticks; their parameters are tested with the other classical models."""

import numpy as np
import pytest

from nbrec.models.baselines import EASE, MarkovChain, Popularity, history_matrix, interactions
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
