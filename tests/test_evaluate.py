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


class Slow(Fixed):
    """Keeps what it is asked, and takes a second of a clock that others read."""

    def __init__(self, n_items):
        super().__init__(n_items)
        self.asked, self.now = [], 0.0

    def score(self, histories):
        self.asked.append([h.tolist() for h in histories])
        self.now += 1.0
        return super().score(histories)


def test_batches_hold_every_user_once_and_only_scoring_is_timed(monkeypatch):
    model, test = Slow(25), data(3, 7, 25, 9)

    def clock():
        model.now += 0.25  # between two looks; ranking takes time as well
        return model.now

    monkeypatch.setattr("nbrec.evaluate.time.perf_counter", clock)
    result = evaluate(model, test, batch_size=3)
    assert [len(batch) for batch in model.asked] == [3, 3, 1]
    assert sum(model.asked, []) == [h.tolist() for h in test.histories()]
    assert result.seconds == 3 * 1.25
    assert len(result.ranks) == len(result.ranks_with_seen) == len(result.recommended) == 7


def test_seen_items_are_left_out_and_twenty_are_kept_unless_one_says_otherwise():
    test = data(4, 300, 40, 9)
    model = Slow(40)
    usual = evaluate(model, test)
    assert [len(batch) for batch in model.asked] == [256, 44]
    assert usual.recommended.shape == (300, 20) and usual.recommended.dtype == np.int32
    masked = evaluate(model, test, mask_seen=True)
    assert usual.ranks.tolist() == masked.ranks.tolist()
    assert usual.ranks.tolist() != evaluate(model, test, mask_seen=False).ranks.tolist()
    assert (usual.ranks <= usual.ranks_with_seen).all()


def test_one_sequence_without_a_history_is_refused():
    mixed = Sequences(np.arange(2), np.array([2, 3, 1], np.int32), np.array([0, 1, 3]),
                      np.arange(6))
    with pytest.raises(ValueError, match="fewer than two items"):
        evaluate(Fixed(6), mixed)


@pytest.mark.parametrize("shape", [(3, 5), (2, 6), (3, 7)])
def test_scores_of_another_shape_are_refused(shape):
    class Wrong:
        def score(self, histories):
            return np.zeros(shape)

    with pytest.raises(ValueError, match=r"Wrong.score gave .*expected \(3, 6\)"):
        evaluate(Wrong(), data(0, 3, 6, 4))


def test_equal_scores_and_all_items_are_put_in_order():
    scores = np.array([[1.0, 3.0, 3.0, 2.0, 0.0]])
    assert top_items(scores, 5).tolist()[0][2:] == [3, 0, 4]
    assert sorted(top_items(scores, 2)[0].tolist()) == [1, 2]
    assert top_items(scores, 1, [np.array([1, 2])]).tolist() == [[3]]


def test_whole_numbers_are_scores_too():
    """They have no infinity that a seen item could be set to."""
    assert top_items(np.array([[3, 1, 2]]), 3, [np.array([0])]).tolist() == [[2, 1, 0]]


@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_counts_that_are_none_are_refused(value):
    for name in ("top_k", "batch_size"):
        with pytest.raises(ValueError, match=f"{name}={value}: expected a whole number, 1 or more"):
            evaluate(Fixed(6), data(0, 3, 6, 4), **{name: value})
    with pytest.raises(ValueError, match=f"k={value}: expected a whole number, 1 or more"):
        top_items(np.zeros((1, 3)), value)


def test_what_cannot_be_put_in_order_is_refused_and_a_long_list_ends_with_the_catalogue():
    with pytest.raises(ValueError, match=r"scores \(3,\): expected \(B, V\)"):
        top_items(np.zeros(3), 2)
    with pytest.raises(ValueError, match="1 arrays of seen items for 2 rows"):
        top_items(np.zeros((2, 3)), 2, [np.array([1])])
    nothing = np.array([], np.int32)
    assert top_items(np.array([[3.0, 9, 5], [3, 9, 5]]), 7, [nothing, np.array([1])]).tolist() == [
        [1, 2, 0], [2, 0, 1]]
