"""Sums over folds and users, and differences between models.

Everything here reads a table of `records.load_records` and returns a table or a few numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from nbrec.metrics import METRICS


def metric_names(df: pd.DataFrame) -> list[str]:
    """The columns `hr@1`, `mrr@20`, ... of a table of records."""
    return [c for c in df.columns if c.partition("@")[0] in METRICS and "@" in c]


def described(df: pd.DataFrame) -> str:
    """What a table of records holds: "ml-1m, 2 to 10 folds"."""
    folds = df.groupby(["variant", "model"])["fold"].nunique()
    low, high = folds.min(), folds.max()
    span = f"{high}" if low == high else f"{low} to {high}"
    return f"{', '.join(df['dataset'].unique())}, {span} fold{'s' if high > 1 else ''}"


def summary(df: pd.DataFrame, metrics: list[str] | None = None) -> pd.DataFrame:
    """Mean, sample standard deviation and 95% Student interval over folds.

    The interval takes folds as independent. They share training users, so it is somewhat narrow;
    to compare two models use `paired_test`.

    Args:
        df: of `load_records`.
        metrics: columns to sum up; by default all metrics, times and personalisation measures.

    Returns:
        one row per profile, dataset, variant, model and metric, with mean, sd, n, low and high
        (sd, low and high are NaN for a single fold).
    """
    if metrics is None:
        extra = ["mean_popularity", "behaviour_popularity", "wasserstein", "coverage", "gini",
                 "stars", "seconds_fit", "seconds_score", "seconds", "epochs", "best_epoch"]
        metrics = metric_names(df) + [name for name in extra if name in df]
    by = ["profile", "dataset", "variant", "model"]
    long = df.melt(by, metrics, var_name="metric").dropna(subset="value")
    long["value"] = long["value"].astype(float)
    groups = long.groupby([*by, "metric"], sort=False)["value"]
    out = groups.agg(mean="mean", sd="std", n="count").reset_index()
    half = stats.t.ppf(0.975, (out["n"] - 1).clip(lower=1)) * out["sd"] / np.sqrt(out["n"])
    return out.assign(low=out["mean"] - half, high=out["mean"] + half)


class Difference(NamedTuple):
    """Difference of two models (a minus b) with its 95% interval; p_value is two-sided."""

    difference: float
    low: float
    high: float
    p_value: float
    n: int


def _pair(df: pd.DataFrame, a: str, b: str, variant: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    chosen = df[df["variant"] == variant].drop_duplicates(["model", "fold"], keep=False)
    first, second = (chosen[chosen["model"] == m].set_index("fold").sort_index() for m in (a, b))
    folds = first.index.intersection(second.index)
    if len(folds) == 0:
        raise ValueError(
            f"no fold of variant {variant!r} has one record each of {a!r} and {b!r}; the table "
            f"holds {sorted(set(df['model']))}, variants {sorted(set(df['variant']))} (several "
            "profiles or datasets in it? choose one first)"
        )
    first, second = first.loc[folds], second.loc[folds]
    if list(first["split_hash"]) != list(second["split_hash"]):
        raise ValueError(f"{a!r} and {b!r} were run on different splits; run one of them again")
    return first, second


def fold_test(values: np.ndarray, ratio: float, margin: float = 0.0) -> Difference:
    """Corrected resampled t-test of whether a mean over folds differs from a margin.

    Nadeau and Bengio (2003), section 3: folds share training users, so the variance of the mean is
    (1/k + n_test/n_train) s^2 instead of s^2/k, on k - 1 degrees of freedom.

    Args:
        values: float (k,), one per fold, such as differences of two models.
        ratio: n_test / n_train.
        margin: what the p-value is of; the difference and its interval are those of the values.

    Raises:
        ValueError: if there are fewer than two folds.
    """
    k = len(values)
    if k < 2:
        raise ValueError(f"a test over folds needs two folds, there is {k}")
    error = math.sqrt((1 / k + ratio) * np.var(values, ddof=1))
    mean, half = float(np.mean(values)), stats.t.ppf(0.975, k - 1) * error
    if error == 0:  # all folds agree exactly: certain, unless there is no difference at all
        return Difference(mean, mean, mean, 1.0 if mean == margin else 0.0, k)
    p_value = float(2 * stats.t.sf(abs(mean - margin) / error, k - 1))
    return Difference(mean, float(mean - half), float(mean + half), p_value, k)


def paired_test(
    df: pd.DataFrame, a: str, b: str, metric: str = "ndcg@20", variant: str = "original",
    margin: float = 0.0,
) -> Difference:
    """`fold_test` of the difference of two models over the same folds.

    Raises:
        ValueError: if fewer than two folds hold both models, or their splits differ.
    """
    first, second = _pair(df, a, b, variant)
    if len(first) < 2:
        raise ValueError(f"a paired test of {a!r} and {b!r} needs two folds, there is {len(first)}")
    ratio = float((first["n_test"] / first["n_train"]).mean())
    return fold_test((first[metric] - second[metric]).to_numpy(float), ratio, margin)


def compare_all(
    df: pd.DataFrame, metric: str = "ndcg@20", variant: str = "original", level: float = 0.05
) -> pd.DataFrame:
    """Paired test of every pair of models, the better one first, with Holm's correction.

    Args:
        df: of `load_records`, one profile and dataset.
        metric: column to compare by; more is better.
        variant: which sequences.
        level: two models differ significantly if their corrected p-value is below it.

    Returns:
        better, worse, difference, low, high, p_value, n (folds that both have), p_holm,
        significant; largest difference first. Pairs with fewer than two folds in common are left
        out. The interval is that of the pair alone, p_holm is valid for all pairs at once.
    """
    folds = df[df["variant"] == variant].groupby("model", sort=False)["fold"].agg(set)
    rows = []
    for a, b in combinations(folds.index, 2):
        if len(folds[a] & folds[b]) < 2:
            continue
        test = paired_test(df, a, b, metric, variant)
        if test.difference < 0:
            a, b, test = b, a, paired_test(df, b, a, metric, variant)
        rows.append({"better": a, "worse": b, **test._asdict()})
    out = pd.DataFrame(rows, columns=["better", "worse", *Difference._fields])
    out["p_holm"] = holm(out["p_value"])
    out["significant"] = out["p_holm"] < level
    return out.sort_values("difference", ascending=False, kind="stable", ignore_index=True)


def paired_ranks(
    df: pd.DataFrame, a: str, b: str, variant: str = "original"
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the same test users under two models, over all folds that both have: two (U,)."""
    first, second = (np.concatenate([record["ranks"] for record in part["record"]])
                     for part in _pair(df, a, b, variant))
    return first, second


def bootstrap_difference(
    a: np.ndarray, b: np.ndarray, n: int = 4_000, seed: int = 0
) -> Difference:
    """Percentile bootstrap over users of the difference of two means (Efron and Tibshirani 1993).

    Args:
        a, b: (U,) float, values of the same users under two models, such as
            `metrics.hits(ranks, 20)` or `metrics.discounted_gains(ranks, 20)`.
        n: number of resamples.

    Returns:
        Difference; its p_value is twice the smaller share of resamples on either side of zero.
        The sample itself counts as one of them, so it is never below 2 / (n + 1).
    """
    d = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if d.ndim != 1 or len(d) == 0:
        raise ValueError(
            f"expected two equally long (U,) arrays, got shapes {np.shape(a)}, {np.shape(b)}"
        )
    # Users with the same difference are interchangeable: draw how often each value comes up.
    values, counts = np.unique(d, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(d), counts / len(d), size=n)
    means = draws @ values / len(d)
    low, high = np.quantile(means, [0.025, 0.975])
    p_value = min(1.0, 2 * (1 + min(np.sum(means <= 0), np.sum(means >= 0))) / (n + 1))
    return Difference(float(d.mean()), float(low), float(high), float(p_value), len(d))


def holm(p_values: Iterable[float]) -> np.ndarray:
    """Holm's (1979) correction: p-values of several tests, valid all at once."""
    p = np.asarray(list(p_values), dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    out = np.empty_like(p)
    out[order] = adjusted
    return out
