"""Sums over folds and users, and tests of differences, by hand."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_records import save

from nbrec import metrics, records
from nbrec.book import orders, significance, user_level


def frame(values_a, values_b, n_train=80, n_test=10, split=("s", "s")):
    rows = []
    for model, values, s in (("a", values_a, split[0]), ("b", values_b, split[1])):
        for fold, value in enumerate(values):
            rows.append({"profile": "p", "dataset": "d", "variant": "original", "model": model,
                         "fold": fold, "ndcg@20": value, "n_train": n_train, "n_test": n_test,
                         "split_hash": s, "seconds": 2.0})
    return pd.DataFrame(rows)


def test_summary_by_hand():
    s = significance.summary(frame([0.1, 0.2, 0.3], [0.5]), ["ndcg@20"]).set_index("model")
    a = s.loc["a"]
    assert a["n"] == 3
    # Student's t at 97.5%, two degrees of freedom: 4.302653; times 0.1 / sqrt(3).
    assert a[["mean", "sd"]].to_list() == pytest.approx([0.2, 0.1])
    assert a[["low", "high"]].to_list() == pytest.approx([0.2 - 0.248414, 0.2 + 0.248414], abs=1e-6)
    assert s.loc["b", "mean"] == 0.5 and s.loc["b", ["sd", "low", "high"]].isna().all()


def test_corrected_t_test_by_hand():
    # d = 0.02, 0.04, 0.06: mean 0.04, s^2 = 0.0004. With k = 3 and n_test / n_train = 1/8 the
    # variance of the mean is (1/3 + 1/8) 0.0004 = 0.00018333, so t^2 = 8.72727. On two degrees
    # of freedom P(|T| > t) = 1 - t / sqrt(t^2 + 2) = 0.09801.
    result = significance.paired_test(frame([0.12, 0.24, 0.36], [0.10, 0.20, 0.30]), "a", "b")
    assert result.difference == pytest.approx(0.04)
    assert result.p_value == pytest.approx(1 - math.sqrt(8.7272727 / 10.7272727), abs=1e-7)
    half = 4.3026527 * math.sqrt(0.00018333333)
    assert (result.low, result.high) == pytest.approx((0.04 - half, 0.04 + half), abs=1e-8)
    back = significance.paired_test(frame([0.12, 0.24, 0.36], [0.10, 0.20, 0.30]), "b", "a")
    assert back.difference == pytest.approx(-0.04) and back.p_value == result.p_value


def test_the_correction_is_stricter_than_the_plain_t_test():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(1)
    a, b = rng.normal(0.3, 0.01, 10), rng.normal(0.29, 0.01, 10)
    plain = ttest_rel(a, b).pvalue
    assert significance.paired_test(frame(a, b), "a", "b").p_value > plain
    # Without any test users the correction vanishes.
    assert significance.paired_test(frame(a, b, n_test=0), "a", "b").p_value == pytest.approx(plain)


def test_pairs_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="no fold"):
        significance.paired_test(frame([0.1, 0.2], []), "a", "b")
    with pytest.raises(ValueError, match="two folds, there is 1"):
        significance.paired_test(frame([0.1], [0.2]), "a", "b")
    with pytest.raises(ValueError, match="different splits"):
        significance.paired_test(frame([0.1, 0.2], [0.2, 0.3], split=("s", "other")), "a", "b")
    same = significance.paired_test(frame([0.1, 0.2], [0.1, 0.2]), "a", "b")
    assert same.difference == 0 and same.p_value == 1


def test_ranks_are_paired_by_fold(tmp_path):
    for fold, (a, b) in enumerate([((1, 2), (3, 4)), ((5, 6), (7, 8))]):
        save(tmp_path, model="item-knn", ranks=a, fold=fold)
        save(tmp_path, model="ease", ranks=b, fold=fold)
    save(tmp_path, model="item-knn", ranks=(9, 9), fold=2)  # ease has no such fold
    df = records.load_records(tmp_path).sample(frac=1, random_state=0)
    a, b = significance.paired_ranks(df, "item-knn", "ease")
    assert a.tolist() == [1, 2, 5, 6] and b.tolist() == [3, 4, 7, 8]


def test_bootstrap_interval_is_that_of_a_mean():
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, 100, 400), rng.integers(1, 100, 400)
    hits_a, hits_b = metrics.hits(a, 40), metrics.hits(b, 30)
    result = significance.bootstrap_difference(hits_a, hits_b, n=20_000)
    d = hits_a - hits_b
    error = d.std() / math.sqrt(len(d))
    assert result.difference == pytest.approx(d.mean())
    assert result.low == pytest.approx(d.mean() - 1.96 * error, abs=0.1 * error)
    assert result.high == pytest.approx(d.mean() + 1.96 * error, abs=0.1 * error)
    assert result == significance.bootstrap_difference(hits_a, hits_b, n=20_000)  # seeded
    # Drawing users one by one, the plain way, gives the same interval.
    plain = d[rng.integers(0, len(d), (20_000, len(d)))].mean(axis=1)
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])),
                                                      abs=0.1 * error)
    same = significance.bootstrap_difference(hits_a, hits_a)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_holm_by_hand():
    # Ordered 0.01, 0.03, 0.04: 3 x 0.01 = 0.03; 2 x 0.03 = 0.06; 1 x 0.04, but not below 0.06.
    assert significance.holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert significance.holm([0.9, 0.8]).max() == 1.0


def several(**values):
    """Records of one variant: model -> its value of NDCG@20 on folds 0, 1, ... (None: no run)."""
    parts = [frame(v, []).assign(model=m) for m, v in values.items()]
    df = pd.concat(parts, ignore_index=True)
    return df[df["ndcg@20"].notna()]


def test_all_pairs_by_hand():
    df = several(a=[0.10, 0.20, 0.30], b=[0.12, 0.24, 0.36], c=[0.10, 0.20, 0.30])
    out = significance.compare_all(df)
    # b - a and b - c are the pair of the corrected test above: p = 0.09801. Holm: 3 p for the
    # smallest, at least that for the next; a and c are the same, p = 1.
    p = 1 - math.sqrt(8.7272727 / 10.7272727)
    pairs = {frozenset(pair) for pair in zip(out["better"], out["worse"], strict=True)}
    assert pairs == {frozenset("ab"), frozenset("bc"), frozenset("ac")}
    assert out["better"].tolist()[:2] == ["b", "b"]
    assert out["difference"].tolist() == pytest.approx([0.04, 0.04, 0])
    assert out["p_value"].tolist() == pytest.approx([p, p, 1])
    assert out["p_holm"].tolist() == pytest.approx([3 * p, 3 * p, 1])
    assert not out["significant"].any()
    assert significance.compare_all(df, level=0.3)["significant"].tolist() == [True, True, False]


@given(st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4), min_size=2, max_size=5))
@settings(deadline=None, max_examples=40)
def test_every_pair_comes_once_the_better_model_first(values):
    df = several(**{f"m{i}": np.array(v) / 50 for i, v in enumerate(values)})
    out = significance.compare_all(df)
    mean = df.groupby("model")["ndcg@20"].mean()
    expected = {frozenset(pair) for pair in combinations(mean.index, 2)}
    assert {frozenset(pair) for pair in zip(out["better"], out["worse"], strict=True)} == expected
    assert len(out) == len(expected)
    gaps = mean[out["better"]].to_numpy() - mean[out["worse"]].to_numpy()
    assert np.allclose(out["difference"], gaps) and (out["difference"] >= 0).all()
    assert ((out["low"] <= out["difference"]) & (out["difference"] <= out["high"])).all()
    assert (out["p_holm"] >= out["p_value"]).all() and out["difference"].is_monotonic_decreasing


def test_a_model_with_some_folds_is_compared_on_those():
    df = several(a=[0.10, 0.20, 0.30], b=[None, 0.24, 0.36], c=[0.5, None, None])
    out = significance.compare_all(df)
    assert out[["better", "worse", "n"]].to_numpy().tolist() == [["b", "a", 2]]  # c: one fold
    assert out["difference"].item() == pytest.approx(0.05)
    none = significance.compare_all(df, variant="truncated")
    assert none.empty and "p_holm" in none and "significant" in none


# --- groups of users -----------------------------------------------------------------------------


def users_of(**models):
    """Table as of `records.per_user`: model -> list of (length of the history, rank)."""
    return pd.concat([pd.DataFrame(pairs, columns=["history_length", "rank"]).assign(
        model=model, fold=0, user=range(len(pairs))) for model, pairs in models.items()])


def test_groups_by_hand():
    users = users_of(b=[(2, 1), (3, 21), (4, 3), (9, 20), (9, 1)], a=[(11, 1), (4, 21)])
    out = user_level.by_group(users, "history_length", (3, 9), ["hr@20", "ndcg@20"])
    rows = list(out[["metric", "model", "place", "group", "users"]].itertuples(index=False,
                                                                               name=None))
    groups = [("b", 0, "up to 3", 2), ("b", 1, "4–9", 3), ("a", 1, "4–9", 1), ("a", 2, "over 9", 1)]
    assert rows == [(m, *g) for m in ("hr@20", "ndcg@20") for g in groups]
    # Ranks 1 | 21, 3 | 20 | 1, 21 | 1 (beyond 20 there is no gain): 1 / log2(rank + 1).
    gains = [1 / 2, (1 / 2 + 1 / math.log2(21) + 1) / 3, 0, 1]
    assert out["mean"].tolist() == pytest.approx([0.5, 1, 0, 1, *gains])
    one = out[out["users"] == 1]  # one user tells nothing about others
    assert (one["low"] == one["mean"]).all() and (one["high"] == one["mean"]).all()


def test_groups_of_equal_size_and_their_intervals():
    rng = np.random.default_rng(0)
    users = pd.concat([pd.DataFrame({
        "model": m, "fold": 0, "user": range(1000), "target_popularity": np.arange(1000) / 10,
        "rank": np.where(rng.random(1000) < p, 1, 99)}) for m, p in (("a", 0.3), ("b", 0.6))])
    out = user_level.by_group(users, "target_popularity", 4)
    assert out["users"].tolist() == [250] * 8  # b's rows must not shift the quantiles
    assert out["group"].tolist()[:4] == ["up to 25", "25–50", "50–74.9", "over 74.9"]
    # A share of 0.3 or 0.6 in 250 users: the normal approximation of the bootstrap.
    half = 1.96 * np.sqrt(out["mean"] * (1 - out["mean"]) / 250)
    assert (out["mean"] - out["low"]).to_numpy() == pytest.approx(half, rel=0.15)
    assert (out["high"] - out["mean"]).to_numpy() == pytest.approx(half, rel=0.15)


def test_differences_are_taken_user_by_user():
    users = users_of(a=[(2, 1), (2, 50), (8, 20), (9, 1)], b=[(2, 30), (2, 1), (8, 21)],
                     c=[(2, 1), (2, 50), (8, 20), (9, 1)])
    out = user_level.by_group(users, "history_length", (5,), ["hr@20"], against="b")
    # Short: 1 - 0 and 0 - 1; long: 1 - 0, and the last user is not known to b.
    assert out[["model", "place", "users", "mean"]].to_numpy().tolist() == [
        ["a", 0, 2, 0], ["a", 1, 1, 1], ["c", 0, 2, 0], ["c", 1, 1, 1]]
    assert out.loc[0, ["low", "high"]].tolist() == [-1, 1]


def test_intervals_over_users_are_those_of_a_mean(tmp_path):
    rng = np.random.default_rng(3)
    ranks = rng.integers(1, 60, 800)
    save(tmp_path, model="ease", ranks=ranks[:500], fold=0)
    save(tmp_path, model="ease", ranks=ranks[500:], fold=1)
    row = user_level.over_users(records.load_records(tmp_path), ["hr@20"], n=20_000).iloc[0]
    share = np.mean(ranks <= 20)
    error = math.sqrt(share * (1 - share) / 800)
    assert (row["low"], row["high"]) == pytest.approx(
        (share - 1.96 * error, share + 1.96 * error), abs=0.1 * error)


# Demsar (2006), Table 6: AUC of four variants of C4.5 on fourteen data sets. One number has a digit
# more than is printed: the ranks beside it say that it is the larger of two that look alike.
AUC = np.array([
    [.763, .768, .771, .798], [.599, .591, .590, .569], [.954, .971, .968, .967],
    [.628, .661, .654, .657], [.882, .888, .886, .898], [.936, .931, .916, .931],
    [.661, .668, .609, .685], [.583, .583, .563, .625], [.775, .838, .866, .875],
    [1, 1, 1, 1], [.940, .962, .965, .962], [.619, .666, .614, .669], [.972, .981, .9751, .975],
    [.957, .978, .946, .970]])


def test_mean_ranks_are_those_of_demsar():
    df = several(**dict(zip(["plain", "m", "cf", "m+cf"], AUC.T, strict=True)))
    out = orders.mean_ranks(df)
    assert out.ranks.index.tolist() == ["m+cf", "m", "cf", "plain"] and out.folds == 14
    assert out.ranks.tolist() == pytest.approx([1.964, 2.000, 2.893, 3.143], abs=6e-4)
    assert out.critical_difference == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    # The largest gap is 1.179: below 1.25 at 5%, above 1.12 at 10%, where 3.143 - 2 is above, too.
    assert out.groups == [["m+cf", "m", "cf", "plain"]]
    loose = orders.mean_ranks(df, level=0.1)
    assert loose.critical_difference == pytest.approx(2.291 * math.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert loose.groups == [["m+cf", "m", "cf"], ["cf", "plain"]]
    # Friedman's chi-square without ties is 9.28 there; ties make it larger.
    assert 0.01 < out.p_value < stats.chi2.sf(9.28, 3)


def test_mean_ranks_use_the_folds_that_all_share():
    df = several(a=[3, 3, 3, 1], b=[2, 2, 2, 2], c=[1, 1, 1, None], d=[9, None, None, None])
    out = orders.mean_ranks(df)  # d would leave one fold
    assert out.ranks.to_dict() == {"a": 1, "b": 2, "c": 3} and out.folds == 3
    with pytest.raises(ValueError, match=r"three models.*1 folds in common"):
        orders.mean_ranks(df, models=["a", "b", "d"])
    with pytest.raises(ValueError, match="three models"):
        orders.mean_ranks(df, models=["a", "b"])
    df.loc[(df["model"] == "a") & (df["fold"] == 1), "split_hash"] = "other"
    with pytest.raises(ValueError, match=r"different splits of folds \[1\]"):
        orders.mean_ranks(df)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9))
@settings(deadline=None, max_examples=60)
def test_tau_of_one_fold_is_scipys(pairs):
    order, values = np.array(pairs, float).T
    ours = float(orders.kendall_tau(order, values[:, None]))
    assert ours == pytest.approx(stats.kendalltau(order, values).statistic, nan_ok=True)


def test_tau_takes_each_pair_on_its_own_folds():
    # a and b share fold 0, a and c fold 1, b and c none; c has the easy fold.
    values = np.array([[0.5, 0.9], [0.4, np.nan], [np.nan, 0.8]])
    assert orders.kendall_tau(np.array([3, 2, 1]), values) == 1
    means = np.nanmean(values, axis=1, keepdims=True)  # 0.7, 0.4, 0.8
    assert orders.kendall_tau(np.array([3, 2, 1]), means) == pytest.approx(-1 / 3)
    several_at_once = np.stack([values, -values])
    assert orders.kendall_tau(np.array([3, 2, 1]), several_at_once).tolist() == [1, -1]


@pytest.mark.parametrize("n", [99, 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_sample_counts_among_its_resamples(n, sign):
    """Every user gains, so no resample lies beyond zero; a p-value of 0 would still be a lie."""
    d = sign * np.array([0.1, 0.2, 0.3])
    found = significance.bootstrap_difference(d, np.zeros(3), n=n)
    assert found.p_value == pytest.approx(2 / (n + 1))
    assert found.difference == pytest.approx(sign * 0.2) and found.n == 3
