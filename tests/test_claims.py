"""A claim holds, does not, or stays open: each case made on purpose."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_records import save
from test_significance import frame

from nbrec import records
from nbrec.book import claims
from nbrec.book.claims import Claim


def three(good, poor, third=None, **options):
    """Models a (good), b (poor) and, if asked for, c."""
    df = frame(good, poor, **options)
    if third is not None:
        more = frame(third, []).assign(model="c")
        df = pd.concat([df, more], ignore_index=True)
    return df


A, B = [0.30, 0.31, 0.32, 0.33, 0.34], [0.20, 0.212, 0.218, 0.232, 0.238]


def judge(df, *pairs, **options):
    return claims.judge(df, Claim("", pairs, **options))


def test_holds_fails_open_and_untested():
    df = three(A, B, [0.29, 0.33, 0.31, 0.34, 0.33])
    assert judge(df, ("a", "b")).verdict == claims.HOLDS
    assert judge(df, ("b", "a")).verdict == claims.FAILS
    assert judge(df, ("a", "c")).verdict == claims.OPEN
    # One open pair keeps the whole claim open, one reversed pair is enough against it.
    assert judge(df, ("a", "b"), ("a", "c")).verdict == claims.OPEN
    assert judge(df, ("a", "c"), ("b", "a")).verdict == claims.FAILS
    assert judge(df, ("a", "b"), metric="gini").verdict == claims.UNTESTED  # no such column
    assert judge(df).verdict == judge(df, ("a", "x")).verdict == claims.UNTESTED
    assert judge(df, ("a", "x")).missing == (("a", "x"),)


def test_a_claim_with_a_missing_model_cannot_hold_but_can_fail():
    found = judge(three(A, B), ("a", "x"), ("a", "b"))
    assert found.verdict == claims.OPEN and found.missing == (("a", "x"),)
    assert found.evidence["second"].tolist() == ["b"]
    assert judge(three(A, B), ("a", "x"), ("b", "a")).verdict == claims.FAILS


def test_many_pairs_are_corrected():
    # b is barely worse than a: alone it is significantly different, among many it is not.
    df = three([0.30, 0.31, 0.32, 0.33, 0.34], [0.29, 0.294, 0.317, 0.319, 0.337], n_test=0)
    alone = judge(df, ("a", "b"))
    p = alone.evidence["p_value"].item()
    assert alone.verdict == claims.HOLDS and 0.01 < p < 0.05
    many = judge(df, *[("a", "b")] * 5)
    assert many.verdict == claims.OPEN
    assert many.evidence["p_holm"].tolist() == pytest.approx([5 * p] * 5)


def test_a_margin_has_to_be_exceeded():
    df = three(A, B)  # a is ahead by 0.098 to 0.102, 0.1 on average
    assert judge(df, ("a", "b"), margin=0.09).verdict == claims.HOLDS
    assert judge(df, ("a", "b"), margin=0.1).verdict == claims.OPEN
    assert judge(df, ("a", "b"), margin=0.11).verdict == claims.FAILS
    assert judge(df, ("b", "a"), margin=-0.11).verdict == claims.HOLDS
    # The difference and its interval are from 0 all the same.
    row = judge(df, ("a", "b"), margin=0.09).evidence.iloc[0]
    assert row["difference"] == pytest.approx(0.1) and row["low"] < 0.1 < row["high"]
    # None is the number 0: values of a alone.
    assert judge(df, ("a", None), margin=0.25).verdict == claims.HOLDS
    assert judge(df, ("a", None), margin=0.35).verdict == claims.FAILS
    assert judge(df, ("x", None)).missing == (("x", None),)


def test_equal_within_a_margin():
    near = [0.301, 0.309, 0.321, 0.329, 0.341]
    assert judge(three(A, near), ("a", "b"), within=0.01).verdict == claims.HOLDS
    assert judge(three(A, near), ("a", "b"), within=0.001).verdict == claims.OPEN
    assert judge(three(A, B), ("a", "b"), within=0.01).verdict == claims.FAILS
    assert judge(three(B, A), ("a", "b"), within=0.01).verdict == claims.FAILS


def test_a_measure_that_users_do_not_have_needs_folds():
    df = three([1.0, 1.1], [3.0, 3.3]).assign(seconds=lambda t: t["ndcg@20"])
    found = judge(df, ("b", "a"), metric="seconds")
    row = found.evidence.iloc[0]
    assert found.verdict == claims.OPEN and row["basis"] == "too few folds"
    assert row["difference"] == pytest.approx(2.1) and math.isnan(row["low"]) and row["n"] == 2
    assert judge(df, ("b", "a"), metric="seconds", within=9.0).verdict == claims.OPEN


def test_few_folds_fall_back_on_users(tmp_path):
    n = 200
    rng = np.random.default_rng(0)
    good, poor = rng.integers(1, 30, n), rng.integers(1, 90, n)
    for model, ranks in (("a", good), ("b", poor)):
        for fold in (0, 1):
            save(tmp_path, model=model, fold=fold, ranks=ranks.tolist())
    df = records.load_records(tmp_path)
    found, basis = claims.difference(df, "a", "b", "hr@20")
    assert basis == "users" and found.n == 2 * n
    assert found.difference == pytest.approx(np.mean(good <= 20) - np.mean(poor <= 20))
    assert judge(df, ("a", "b"), metric="hr@20").verdict == claims.HOLDS
    assert judge(df, ("b", "a"), metric="hr@20").verdict == claims.FAILS
    with pytest.raises(ValueError, match="no fold of variant 'truncated'.*'a' and 'b'"):
        claims.difference(df, "a", "b", "hr@20", "truncated")


def test_verdicts_are_counted():
    df = three(A, B)
    verdicts = [judge(df, p) for p in (("a", "b"), ("a", "b"), ("b", "a"), ("a", "x"))]
    assert claims.counted(verdicts) == {
        claims.HOLDS: 2, claims.FAILS: 1, claims.OPEN: 0, claims.UNTESTED: 1}


def cut_off(df, *models, level=0.05, **options):
    pairs = tuple((m, m) for m in models)
    return claims.judge(df, Claim("", pairs, "hr@20", truncation=True, **options), level=level)


@pytest.mark.parametrize("folds", [1, 5])
def test_truncation(tmp_path, folds):
    rng = np.random.default_rng(0)
    for fold in range(folds):
        near, far = rng.integers(1, 30, 200), rng.integers(1, 90, 200)
        users = 200 * fold + np.arange(200)
        # "mixed" hits the same users as before, and others enter whom it does not hit.
        enter, poor = 9_000 + users, np.full(200, 80)
        for model, who, cut in (
                ("falls", users, far), ("stays", users, near), ("rises", users, near // 2 + 1),
                ("mixed", [*users, *enter], [*near, *poor])):
            save(tmp_path, model=model, fold=fold, ranks=near, users=users)
            save(tmp_path, model=model, fold=fold, ranks=cut, users=who, variant="truncated")
    save(tmp_path, model="whole", ranks=near)
    df = records.load_records(tmp_path)
    for model, verdict in (("falls", claims.HOLDS), ("stays", claims.OPEN), ("mixed", claims.OPEN),
                           ("rises", claims.FAILS), ("whole", claims.UNTESTED)):
        assert cut_off(df, model).verdict == verdict
    assert cut_off(df, "falls", "stays").verdict == claims.OPEN
    assert cut_off(df, "stays", within=0.05).verdict == claims.HOLDS
    assert cut_off(df, "falls", within=0.05).verdict == claims.FAILS
    assert cut_off(df, "rises", within=0.05).verdict == claims.FAILS
    pair = cut_off(df, "falls").evidence.iloc[0]
    mean = df[df["model"] == "falls"].groupby("variant")["hr@20"].mean()
    assert pair["difference"] == pytest.approx(mean["original"] - mean["truncated"])
    assert 0 < pair["low"] < pair["difference"] < pair["high"]
    assert pair["basis"] == "same users" and pair["n"] == 200 * folds
    # A p-value of 0.05 is where the 95% interval ends at zero; Holm doubles the smaller of two.
    assert pair["p_value"] == pytest.approx(
        2 * stats.norm.sf(1.96 * pair["difference"] / (pair["high"] - pair["difference"])))
    two = cut_off(df, "falls", "stays").evidence
    assert two["p_holm"].tolist() == pytest.approx([2 * pair["p_value"], 1.0])
    assert cut_off(df, "falls", level=pair["p_value"]).verdict == claims.OPEN
