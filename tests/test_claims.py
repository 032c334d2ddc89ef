"""A sentence holds, does not, or stays open: each case made on purpose."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_records import save
from test_significance import frame

from nbrec import records
from nbrec.book import claims


def three(good, poor, third=None, **options):
    """Models a (good), b (poor) and, if asked for, c."""
    df = frame(good, poor, **options)
    if third is not None:
        more = frame(third, []).assign(model="c")
        df = pd.concat([df, more], ignore_index=True)
    return df


A, B = [0.30, 0.31, 0.32, 0.33, 0.34], [0.20, 0.212, 0.218, 0.232, 0.238]


def test_holds_fails_open_and_untested():
    df = three(A, B, [0.29, 0.33, 0.31, 0.34, 0.33])
    assert claims.judge(df, [("a", "b")]).verdict == claims.HOLDS
    assert claims.judge(df, [("b", "a")]).verdict == claims.FAILS
    assert claims.judge(df, [("a", "c")]).verdict == claims.OPEN
    # One open pair keeps the whole sentence open, one reversed pair is enough against it.
    assert claims.judge(df, [("a", "b"), ("a", "c")]).verdict == claims.OPEN
    assert claims.judge(df, [("a", "c"), ("b", "a")]).verdict == claims.FAILS
    assert claims.judge(df, [("a", "x")]).verdict == claims.UNTESTED
    assert claims.judge(df, [("a", "x"), ("a", "b")]).pairs["second"].tolist() == ["b"]


def test_many_pairs_are_corrected():
    # b is barely worse than a: alone it is told apart, among many it is not.
    df = three([0.30, 0.31, 0.32, 0.33, 0.34], [0.29, 0.294, 0.317, 0.319, 0.337], n_test=0)
    alone = claims.judge(df, [("a", "b")])
    assert alone.verdict == claims.HOLDS and 0.01 < alone.pairs["p_value"].item() < 0.05
    assert claims.judge(df, [("a", "b")] * 5).verdict == claims.OPEN


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
    assert claims.judge(df, [("a", "b")], "hr@20").verdict == claims.HOLDS
    assert claims.judge(df, [("b", "a")], "hr@20").verdict == claims.FAILS


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
        assert claims.judge_truncation(df, [model]).verdict == verdict
    assert claims.judge_truncation(df, ["falls", "stays"]).verdict == claims.OPEN
    pair = claims.judge_truncation(df, ["falls"]).pairs.iloc[0]
    mean = df[df["model"] == "falls"].groupby("variant")["hr@20"].mean()
    assert pair["difference"] == pytest.approx(mean["original"] - mean["truncated"])
    assert 0 < pair["low"] < pair["difference"] < pair["high"]
    assert pair["basis"] == "same users" and pair["n"] == 200 * folds
    # A p-value of 0.05 is where the 95% interval ends at zero; Holm doubles the smaller of two.
    assert pair["p_value"] == pytest.approx(
        2 * stats.norm.sf(1.96 * pair["difference"] / (pair["high"] - pair["difference"])))
    two = claims.judge_truncation(df, ["falls", "stays"]).pairs
    assert two["p_holm"].tolist() == pytest.approx([2 * pair["p_value"], 1.0])
    assert claims.judge_truncation(df, ["falls"], level=pair["p_value"]).verdict == claims.OPEN
