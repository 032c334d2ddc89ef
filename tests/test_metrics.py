"""Ranks and metrics against fractions worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_records import save

from nbrec import metrics as m
from nbrec import records, tasks
from nbrec.book import plots, significance, user_level
from nbrec.evaluate import Evaluation
from nbrec.sequences import Sequences

RANKS = np.array([1, 2, 3, 20, 21])


def test_metrics_by_hand():
    assert m.hit_rate(RANKS, 1) == 1 / 5 and m.hit_rate(RANKS, 20) == 4 / 5
    assert m.mrr(RANKS, 20) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 20) / 5, rel=1e-12)
    assert m.mrr(RANKS, 2) == pytest.approx(1.5 / 5, rel=1e-12)
    gains = 1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(21)
    assert m.ndcg(RANKS, 20) == pytest.approx(gains / 5, rel=1e-12)


@given(arrays(np.int64, st.integers(1, 30), elements=st.integers(1, 500)), st.integers(1, 400))
def test_properties(ranks, k):
    hr, mrr, ndcg = m.hit_rate(ranks, k), m.mrr(ranks, k), m.ndcg(ranks, k)
    assert 0 <= mrr <= ndcg + 1e-12 and ndcg <= hr + 1e-12 and hr <= 1
    for metric in (m.hit_rate, m.mrr, m.ndcg):
        assert metric(ranks, k) <= metric(ranks, k + 1) + 1e-12
        assert metric(ranks[::-1], k) == pytest.approx(metric(ranks, k))
    assert m.hit_rate(ranks, 1) == m.mrr(ranks, 1) == m.ndcg(ranks, 1)


def test_ranks_by_hand():
    scores = np.array([[0.1, 0.9, 0.5, 0.3], [0.1, 0.9, 0.5, 0.3]])
    assert m.target_ranks(scores, [1, 3]).tolist() == [1, 3]
    seen = [np.array([1]), np.array([1, 1, 3])]  # twice seen counts once; a target stays
    assert m.target_ranks(scores, [2, 3], seen).tolist() == [1, 2]


def test_ties_count_against_the_model():
    assert m.target_ranks(np.zeros((1, 5)), [2]).tolist() == [5]
    assert m.target_ranks(np.full((1, 5), -np.inf), [2]).tolist() == [5]
    assert m.target_ranks(np.array([[1.0, 1.0, 0.0]]), [0]).tolist() == [2]


def test_nan_is_never_a_hit():
    scores = np.array([[np.nan, 1.0, 0.0], [2.0, 1.0, 0.0]])
    ranks = m.target_ranks(scores, [0, 0])
    assert ranks.tolist() == [m.NEVER, 1]
    assert m.hit_rate(ranks, 300) == 0.5 and m.ndcg(ranks, 300) == 0.5


def test_nan_of_another_item_stands_ahead_like_a_tie():
    scores = np.array([[np.nan, 2.0, np.nan], [np.nan, 2.0, 1.0]])
    assert m.target_ranks(scores, [1, 2]).tolist() == [3, 3]
    assert m.target_ranks(scores, [1, 1], [[0], [0]]).tolist() == [2, 1]


@given(st.integers(0, 2**32 - 1))
def test_ranks_equal_a_slow_count(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (3, 6)).astype(float)
    targets = rng.integers(0, 6, 3)
    seen = [rng.integers(0, 6, rng.integers(0, 5)) for _ in range(3)]
    for row, rank in enumerate(m.target_ranks(scores, targets, seen)):
        ahead = [j for j in range(6) if j != targets[row] and j not in seen[row]
                 and scores[row, j] >= scores[row, targets[row]]]
        assert rank == 1 + len(ahead)


def test_random_scores_hit_by_chance():
    rng = np.random.default_rng(0)
    ranks = m.target_ranks(rng.random((20_000, 200)), rng.integers(0, 200, 20_000))
    assert m.hit_rate(ranks, 20) == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 20_000))


@pytest.mark.parametrize("scores, targets", [(np.zeros((2, 3)), [0]), (np.zeros(3), [0]),
                                             (np.zeros((1, 3)), [3]), (np.zeros((1, 3)), [-1])])
def test_what_does_not_fit_is_refused(scores, targets):
    with pytest.raises(ValueError, match="expected"):
        m.target_ranks(scores, targets)


@pytest.mark.parametrize("ranks, k", [([0], 1), ([1], 0), ([], 1)])
def test_impossible_ranks_are_refused(ranks, k):
    with pytest.raises(ValueError, match="1 or more"):
        m.hit_rate(ranks, k)


def test_popularity_counts_sequences_not_items():
    train = Sequences(np.arange(4), np.array([0, 0, 1, 0, 2, 0]), np.array([0, 3, 4, 5, 6]),
                      np.arange(4))
    assert m.popularity(train).tolist() == [750, 250, 250, 0]


def test_personalisation_by_hand():
    popularity = np.array([100.0, 10.0, 1.0, 0.0])
    result = m.personalisation(popularity, np.array([[0, 1], [0, 1]]), np.array([1, 2]), floor=0.1)
    assert result["mean_popularity"] == 55 and result["behaviour_popularity"] == 5.5
    assert result["wasserstein"] == pytest.approx(1.0)  # one decade each
    assert result["coverage"] == 0.5 and result["stars"] == 1
    assert result["gini"] == pytest.approx(0.5)  # 0, 0, 2, 2
    same = m.personalisation(popularity, np.array([[1, 2]]), np.array([1, 2]), floor=0.1)
    assert same["wasserstein"] == pytest.approx(0) and same["stars"] == 3
    floor = m.personalisation(popularity, np.array([[3, 3]]), np.array([2, 2]), floor=0.1)
    assert floor["wasserstein"] == pytest.approx(1.0)


def test_a_cut_beyond_the_catalogue_finds_every_target():
    scores = np.random.default_rng(1).random((50, 7))
    ranks = m.target_ranks(scores, np.arange(50) % 7)
    assert ranks.max() <= 7 and m.hit_rate(ranks, 300) == 1 and m.hit_rate(ranks, 6) < 1
    assert m.mrr(ranks, 300) == pytest.approx((1 / ranks).mean(), rel=1e-12)


def test_ranks_ignore_how_items_are_numbered():
    rng = np.random.default_rng(2)
    scores, targets = rng.integers(0, 5, (20, 9)).astype(float), rng.integers(0, 9, 20)
    order = rng.permutation(9)
    place = np.argsort(order)
    assert m.target_ranks(scores[:, order], place[targets]).tolist() == m.target_ranks(
        scores, targets).tolist()


@given(st.integers(0, 2**32 - 1))
def test_gini_and_distance_equal_their_definitions(seed):
    rng = np.random.default_rng(seed)
    popularity = 10 ** rng.uniform(-1, 2, 8)
    recommended, behaviour = rng.integers(0, 8, (4, 3)), rng.integers(0, 8, 12)
    result = m.personalisation(popularity, recommended, behaviour, floor=0.1)
    x = np.bincount(recommended.ravel(), minlength=8)
    assert result["gini"] == pytest.approx(
        np.abs(x[:, None] - x).sum() / (2 * 8 * 8 * x.mean()), abs=1e-12)
    # Two samples of one size: the distance is the mean gap between their sorted values.
    a, b = (np.sort(np.log10(popularity[i.ravel()])) for i in (recommended, behaviour))
    assert result["wasserstein"] == pytest.approx(np.abs(a - b).mean(), abs=1e-9)


@pytest.mark.parametrize("decades, stars", [(0.0, 3), (0.24, 3), (0.26, 2), (0.49, 2), (0.51, 1)])
def test_stars_follow_their_thresholds(decades, stars):
    popularity = np.array([10.0, 10.0 ** (1 + decades)])
    result = m.personalisation(popularity, np.array([[1]]), np.array([0]), floor=0.1)
    assert result["wasserstein"] == pytest.approx(decades) and result["stars"] == stars


def test_the_cut_offs_are_those_of_the_thesis():
    assert m.KS == (1, 20, 100, 300)


def test_lists_are_taken_as_arrays():
    assert m.target_ranks([[0.1, 0.9], [0.5, 0.4]], [1, 1]).tolist() == [1, 2]
    assert m.reciprocal_ranks([1, 4], 4).tolist() == [1, 0.25]
    assert m.discounted_gains([1, 3], 3).tolist() == [1, 0.5]
    lists = m.personalisation(np.array([10.0, 1.0]), [[0, 1], [0, 1]], [1, 1], floor=0.1)
    assert lists["mean_popularity"] == 5.5 and lists["coverage"] == 1


@pytest.mark.parametrize("targets", [[0, 3], [-1, 2]])
def test_one_target_outside_the_catalogue_is_refused(targets):
    """The others are in it, so the least and the largest must both be looked at."""
    with pytest.raises(ValueError, match=r"catalogue index .* expected 0\.\.2"):
        m.target_ranks(np.zeros((2, 3)), targets)


def test_seen_items_of_fewer_users_are_refused():
    with pytest.raises(ValueError, match="1 arrays of seen items for 2 users"):
        m.target_ranks(np.zeros((2, 3)), [0, 1], [np.array([2])])


@pytest.mark.parametrize("metric", [m.hits, m.reciprocal_ranks, m.discounted_gains])
@pytest.mark.parametrize("ranks, k", [([3, 0], 5), ([[1, 2]], 5), ([1, 2], 0), ([1, 2], 1.5),
                                      ([1.5, 2], 5), ([np.nan, 2], 5),
                                      ([np.inf, 2], 5), ([True], 5), ([], 5)])
def test_every_metric_refuses_impossible_ranks(metric, ranks, k):
    with pytest.raises(ValueError, match="expected a whole number|expected one dimension of rank"):
        metric(np.array(ranks), k)


def test_an_item_watched_twice_by_one_user_is_as_popular_as_once():
    twice = Sequences(np.arange(2), np.array([1, 1, 1, 0]), np.array([0, 3, 4]), np.arange(2))
    assert m.popularity(twice).tolist() == [500, 500]


def test_personalisation_counts_every_viewing():
    """What was watched twice weighs twice; what was recommended once is covered."""
    popularity = np.array([100.0, 10.0, 1.0])
    result = m.personalisation(popularity, np.array([[0], [1]]), np.array([2, 2, 0]), floor=0.1)
    assert result["behaviour_popularity"] == 34 and result["coverage"] == pytest.approx(2 / 3)
    # Sorted decades, in sixths: 1 1 1 2 2 2 against 0 0 0 0 2 2.
    assert result["wasserstein"] == pytest.approx((3 * 1 + 1 * 2) / 6)


@pytest.mark.parametrize("distance, stars", [(0.25, 3), (0.5, 2)])
def test_a_distance_on_a_threshold_has_the_better_star(monkeypatch, distance, stars):
    monkeypatch.setattr(m, "wasserstein_distance", lambda a, b: distance)
    result = m.personalisation(np.array([1.0, 2.0]), np.array([[0]]), np.array([1]), floor=0.1)
    assert result["stars"] == stars


# --- one line makes a metric known ---------------------------------------------------------------


def test_metrics_by_name_are_the_functions_by_hand():
    ranks = np.array([1, 3, 30])
    assert m.mean("hr@20", ranks) == pytest.approx(2 / 3) == m.hit_rate(ranks, 20)
    assert m.mean("mrr@5", ranks) == pytest.approx((1 + 1 / 3) / 3) == m.mrr(ranks, 5)
    assert m.mean("ndcg@3", ranks) == pytest.approx((1 + 1 / 2) / 3) == m.ndcg(ranks, 3)
    assert m.names() == [f"{name}@{k}" for name in ("hr", "mrr", "ndcg") for k in (1, 20, 100, 300)]
    for name in ("hr", "hr@", "hr@0", "hr@1.5", "recall@20", "@20", "hr@-1", ""):
        with pytest.raises(ValueError, match=f"metric {name!r}: expected one of hr, mrr, ndcg"):
            m.mean(name, ranks)


def test_a_metric_in_one_place_is_in_records_summaries_tests_and_figures(tmp_path, monkeypatch):
    """Rank-biased precision (Moffat and Zobel, 2008): (1 - p) p^(rank - 1), with p = 0.8."""
    for fold, ranks in enumerate(((1, 5, 400), (2, 2, 9), (1, 1, 30))):
        save(tmp_path, fold=fold, ranks=ranks)
        save(tmp_path, model="markov", fold=fold, ranks=(400, 9, 9))  # records from before
    rbp = m.Metric("RBP", lambda ranks, k: np.where(ranks <= k, 0.2 * 0.8 ** (ranks - 1.0), 0.0),
                   cutoffs=(20,))
    monkeypatch.setitem(m.METRICS, "rbp", rbp)
    df = records.load_records(tmp_path)
    row = df.query("model == 'item-knn' and fold == 0").iloc[0]
    assert row["rbp@20"] == pytest.approx((0.2 + 0.2 * 0.8**4) / 3, abs=1e-6)
    table = significance.summary(df).query("metric == 'rbp@20'").set_index("model")
    assert table.loc["item-knn", "mean"] > table.loc["markov", "mean"] > 0
    assert user_level.over_users(df, ["rbp@20"])["mean"].iloc[0] > 0
    assert plots.metric_label("rbp@20") == "RBP@20"
    fig = plots.metric_intervals(significance.summary(df, ["rbp@20"]), ["rbp@20"])
    assert any("RBP@20" in text for ax in fig.axes for text in (ax.get_xlabel(), ax.get_title()))
    evaluated = tasks.measures(
        Evaluation(np.array([1, 30]), np.array([1, 30]), np.array([[0], [1]]), 0.0),
        *(Sequences(np.arange(2), np.array([0, 1, 1, 0], np.int32), np.array([0, 2, 4]),
                    np.arange(2)),) * 2)
    assert evaluated["metrics"]["rbp@20"] == pytest.approx(0.1)


@pytest.mark.parametrize("per_user, found", [
    (lambda ranks, k: ranks.mean(), r"gives \(\), 0 of"),
    (lambda ranks, k: ranks[:2], r"gives \(2,\), 0 of"),
    (lambda ranks, k: ranks / np.array([1, 0, 2]), r"gives \(3,\), 1 of"),
])
def test_a_metric_has_one_finite_number_for_each_user(monkeypatch, per_user, found):
    monkeypatch.setitem(m.METRICS, "own", m.Metric("Own", per_user))
    with pytest.raises(ValueError, match=f"metric 'own@20' {found}.*expected a finite number"), \
            np.errstate(divide="ignore"):
        m.mean("own@20", np.array([1, 2, 3]))


def test_ranks_may_be_floats_if_they_are_whole():
    assert m.hits(np.array([1.0, 4.0]), 3).tolist() == [1, 0]
    with pytest.raises(ValueError, match="expected"):
        m.hits(np.array([1.0, 2.5]), 3)
