"""Ranks and recommendations of one evaluation must tell the same story."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrec.evaluate import evaluate, top_items
from nbrec.sequences import Sequences


class Fixed:
    """Distinct random scores that depend on the history alone."""

    def __init__(self, n_items):
        self.n_items = n_items

    def score(self, histories):
        return np.array([np.random.default_rng(h.tolist()).permutation(self.n_items)
                         for h in histories], dtype=np.float32).reshape(-1, self.n_items)


def data(seed, users, n_items, longest):
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(n_items)[: rng.integers(2, longest)] for _ in range(users)]
    offsets = np.concatenate(([0], np.cumsum([len(p) for p in parts])))
    return Sequences(np.arange(users), np.concatenate(parts).astype(np.int32), offsets,
                     np.arange(n_items))


@given(st.integers(0, 10**6), st.booleans(), st.integers(1, 9))
def test_the_target_stands_at_its_rank(seed, mask, batch_size):
    test = data(seed, 7, 25, 9)
    result = evaluate(Fixed(25), test, mask, top_k=12, batch_size=batch_size)
    for rank, row, target in zip(result.ranks, result.recommended, test.targets(), strict=True):
        place = np.flatnonzero(row == target)
        assert place.tolist() == ([rank - 1] if rank <= 12 else [])
    scores = Fixed(25).score(test.histories())
    assert result.ranks_with_seen.tolist() == [
        1 + int((row > row[t]).sum()) for row, t in zip(scores, test.targets(), strict=True)]
    if mask:
        for row, history in zip(result.recommended, test.histories(), strict=True):
            assert not set(row) & set(history)


def test_seen_items_come_last_where_nothing_else_is_left():
    scores = np.array([[9.0, 8.0, 1.0, 2.0]])
    assert top_items(scores, 2, [np.array([0, 1, 1])]).tolist() == [[3, 2]]
    assert top_items(scores, 4, [np.array([0, 1])])[0, :2].tolist() == [3, 2]
    assert scores.tolist() == [[9, 8, 1, 2]]  # the caller's scores are not touched


def test_a_score_that_is_not_a_number_is_not_recommended():
    assert top_items(np.array([[np.nan, 1.0, 2.0, np.nan]]), 2).tolist() == [[2, 1]]


def test_more_recommendations_than_items():
    test = data(0, 3, 6, 4)
    assert evaluate(Fixed(6), test, top_k=20, mask_seen=False).recommended.shape == (3, 6)


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(ValueError, match="no test sequence"):
        evaluate(Fixed(6), data(0, 3, 6, 4).select([]))
    short = Sequences(np.arange(1), np.array([2], np.int32), np.array([0, 1]), np.arange(6))
    with pytest.raises(ValueError, match="fewer than two items"):
        evaluate(Fixed(6), short)
