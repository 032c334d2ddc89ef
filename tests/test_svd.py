"""Truncated SVD against numpy's full decomposition."""

import numpy as np
import pytest

from nbrec.models.svd import SVD
from nbrec.sequences import Sequences


def blocks(users=60, n_items=20, seed=0):
    """Two groups of users, each of whom watches from one half of the items."""
    rng = np.random.default_rng(seed)
    parts = [10 * (u % 2) + rng.permutation(10)[: rng.integers(3, 9)] for u in range(users)]
    offsets = np.concatenate(([0], np.cumsum([len(p) for p in parts])))
    return Sequences(np.arange(users), np.concatenate(parts).astype(np.int32), offsets,
                     np.arange(n_items))


@pytest.mark.parametrize("rank", [1, 2, 7])
def test_equals_numpys_decomposition(rank):
    train = blocks()
    m = np.zeros((60, 20))
    for u in range(60):
        m[u, train[u]] = 1
    v = np.linalg.svd(m)[2][:rank].T
    histories = train.histories()
    h = np.zeros((60, 20))
    for u, history in enumerate(histories):
        h[u, history] = 1
    found = SVD(rank).fit(train).score(histories)
    assert found == pytest.approx(h @ v @ v.T, abs=1e-4) and np.abs(found).max() > 0.1


def test_two_groups_need_two_dimensions():
    train = blocks()
    scores = SVD(2).fit(train).score([np.array([0, 1, 2])])[0]
    assert scores[:10].min() > 10 * np.abs(scores[10:]).max()


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="rank=0"):
        SVD(rank=0)
    with pytest.raises(ValueError, match="rank=20: expected less than 20"):
        SVD(rank=20).fit(blocks())


def test_the_seed_decides_and_nothing_else_does():
    """Directions are found by iteration: another start ends in other last digits, or signs."""
    made = []
    for outside, seed in ((1, 0), (2, 0), (2, 1)):
        np.random.seed(outside)
        made.append(SVD(3, seed).fit(blocks()).items)
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])
    assert made[0].dtype == np.float32 and made[0].flags.c_contiguous


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_a_seed_that_is_none_is_refused_before_fitting(seed):
    with pytest.raises(ValueError, match=f"seed={seed}: expected a whole number"):
        SVD(3, seed)
