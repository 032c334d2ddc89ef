"""Sums over folds and users, and differences between models.

Everything here reads a table of `records.load_records` and returns a table or a few numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise, product
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from nbrec.metrics import METRICS, per_user
from nbrec.records import read_record


def metric_names(df: pd.DataFrame) -> list[str]:
    """The columns `hr@1`, `mrr@20`, ... of a table of records."""
    kinds = "|".join(map(re.escape, METRICS))
    return [c for c in df.columns if re.fullmatch(rf"({kinds})@\d+", c)]


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


def paired_test(
    df: pd.DataFrame, a: str, b: str, metric: str = "ndcg@20", variant: str = "original"
) -> Difference:
    """Corrected resampled t-test of a difference between two models over the same folds.

    Nadeau and Bengio (2003), section 3: folds share training users, so the variance of the mean
    difference is (1/k + n_test/n_train) s^2 instead of s^2/k, on k - 1 degrees of freedom.

    Raises:
        ValueError: if fewer than two folds hold both models, or their splits differ.
    """
    first, second = _pair(df, a, b, variant)
    d, k = (first[metric] - second[metric]).to_numpy(float), len(first)
    if k < 2:
        raise ValueError(f"a paired test of {a!r} and {b!r} needs two folds, there is {k}")
    ratio = float((first["n_test"] / first["n_train"]).mean())
    error = math.sqrt((1 / k + ratio) * d.var(ddof=1))
    mean, half = float(d.mean()), stats.t.ppf(0.975, k - 1) * error
    if error == 0:  # all folds agree exactly: certain, unless there is no difference at all
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0, k)
    p_value = float(2 * stats.t.sf(abs(mean) / error, k - 1))
    return Difference(mean, float(mean - half), float(mean + half), p_value, k)


def compare_all(
    df: pd.DataFrame, metric: str = "ndcg@20", variant: str = "original", level: float = 0.05
) -> pd.DataFrame:
    """Paired test of every pair of models, the better one first, with Holm's correction.

    Args:
        df: of `load_records`, one profile and dataset.
        metric: column to compare by; more is better.
        variant: which sequences.
        level: two models are told apart if their corrected p-value is below it.

    Returns:
        better, worse, difference, low, high, p_value, n (folds that both have), p_holm,
        told_apart; largest difference first. Pairs with fewer than two folds in common are left
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
    out["told_apart"] = out["p_holm"] < level
    return out.sort_values("difference", ascending=False, kind="stable", ignore_index=True)


def paired_ranks(
    df: pd.DataFrame, a: str, b: str, variant: str = "original"
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the same test users under two models, over all folds that both have: two (U,)."""
    first, second = _pair(df, a, b, variant)
    return tuple(
        np.concatenate([read_record(path)["ranks"] for path in part["path"]])
        for part in (first, second)
    )


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


def by_group(
    users: pd.DataFrame, column: str, edges: int | Sequence[float],
    metrics: Iterable[str] = ("hr@20",), against: str | None = None, n: int = 1000,
) -> pd.DataFrame:
    """Accuracy over groups of test users, with 95% bootstrap intervals over the users.

    Args:
        users: of `records.per_user`, one profile, dataset and variant.
        column: what to group by, such as "target_popularity" or "history_length".
        edges: where one group ends (inclusive) and the next begins; or how many groups there are
            to be, of as many test users each as ties allow.
        metrics: such as "hr@20" or "ndcg@20".
        against: a model; then the means are those of the difference to it, user by user.
        n: number of resamples.

    Returns:
        metric, model, place (0, 1, ..), group (its name), users, mean, low, high; without the
        groups that a model has no users in.
    """
    if isinstance(edges, int):
        everyone = users.drop_duplicates(["fold", "user"])[column]
        edges = np.unique(everyone.quantile(np.arange(1, edges) / edges))
    step = 1 if pd.api.types.is_integer_dtype(users[column]) else 0
    names = [f"up to {edges[0]:.3g}", *(f"{low + step:.3g}–{high:.3g}" for low, high in
                                        pairwise(edges)), f"over {edges[-1]:.3g}"]
    if against:
        other = users[users["model"] == against].set_index(["fold", "user"])["rank"]
        users = users[users["model"] != against].join(other.rename("other"), on=["fold", "user"])
        users = users.dropna(subset="other")
    rows = []
    for metric, (model, part) in product(metrics, users.groupby("model", sort=False)):
        for place, group in part.groupby(np.searchsorted(edges, part[column])):
            values = per_user(metric, group["rank"])
            others = per_user(metric, group["other"]) if against else np.zeros(len(values))
            mean = bootstrap_difference(values, others, n)
            rows.append((metric, model, place, names[place], len(values), *mean[:3]))
    return pd.DataFrame(rows, columns=["metric", "model", "place", "group", "users", "mean", "low",
                                       "high"])


def over_users(
    df: pd.DataFrame, metrics: Iterable[str] = ("ndcg@20",), variant: str = "original",
    against: str | None = None, n: int = 2000,
) -> pd.DataFrame:
    """Mean of each model over its test users, with a 95% bootstrap interval over the users.

    The users of all folds of a model are pooled, so one fold is enough. The trained models are
    taken as given: what other training users or another seed would change is not in the interval.

    Args:
        df: of `load_records`, one profile and dataset.
        metrics: such as "hr@20" or "ndcg@20".
        against: a model; then the means are those of the difference to it, user by user, over the
            folds that both have.
        n: number of resamples.

    Returns:
        variant, model, metric, mean, low, high, p_value (that the mean is 0), n (users), folds.
    """
    chosen, rows = df[df["variant"] == variant], []
    folds = chosen.groupby("model", sort=False)["fold"].agg(set)
    shared = {m: f & folds.get(against, set()) if against else f for m, f in folds.items()}
    for model in [m for m, f in shared.items() if f and m != against]:
        if against:
            ranks = paired_ranks(df, model, against, variant)
        else:
            paths = chosen.loc[chosen["model"] == model].sort_values("fold")["path"]
            ranks = (np.concatenate([read_record(path)["ranks"] for path in paths]),)
        for metric in metrics:
            values = [per_user(metric, r) for r in ranks]
            found = bootstrap_difference(values[0], values[1] if against else 0 * values[0], n)
            rows.append((variant, model, metric, *found, len(shared[model])))
    return pd.DataFrame(rows, columns=["variant", "model", "metric", "mean", "low", "high",
                                       "p_value", "n", "folds"])


class MeanRanks(NamedTuple):
    """Mean ranks of models over folds (1 is best), and which of them stand too close to tell.

    Args:
        ranks: model -> mean rank, the best first.
        critical_difference: mean ranks closer than this are not told apart (Nemenyi).
        p_value: of Friedman's test that all models are alike.
        groups: largest sets of neighbours in the order that are not told apart, two models each
            at least.
        folds: how many.
    """

    ranks: pd.Series
    critical_difference: float
    p_value: float
    groups: list[list[str]]
    folds: int


def mean_ranks(
    df: pd.DataFrame, metric: str = "ndcg@20", variant: str = "original",
    models: Iterable[str] | None = None, level: float = 0.05,
) -> MeanRanks:
    """Friedman's test and Nemenyi's critical difference (Demsar 2006, section 3.2.2).

    In each fold the models are ranked from 1, ties sharing the mean of their ranks. Two of k models
    are told apart over N folds if their mean ranks differ by q sqrt(k (k + 1) / (6 N)) at least,
    q being the studentised range for k models and infinitely many degrees of freedom, over sqrt 2.

    Demsar's N are independent data sets. Ours are folds of one, which share most of their training
    users, so the p-value and the critical difference are somewhat too small. `compare_all`
    corrects for that and is the main verdict.

    Args:
        df: of `load_records`, one profile and dataset.
        metric: more is better.
        models: which to compare, on the folds that all of them have; by default those that have
            the most folds, and at least three.
        level: of the test.

    Raises:
        ValueError: if there are fewer than three models, they share fewer than two folds, or their
            splits differ.
    """
    chosen = df[df["variant"] == variant].drop_duplicates(["model", "fold"], keep=False)
    if models is None:
        count = chosen["model"].value_counts()
        models = count.index[count >= count.iloc[:3].min()]
    chosen = chosen[chosen["model"].isin(models := list(models))]
    wide = chosen.pivot(index="fold", columns="model", values=metric).dropna()
    n, k = wide.shape
    if k < 3 or n < 2:
        raise ValueError(f"mean ranks need three models with two folds in common; {sorted(models)} "
                         f"on variant {variant!r} have {n} folds in common")
    splits = chosen[chosen["fold"].isin(wide.index)].groupby("fold")["split_hash"].nunique()
    if (splits > 1).any():
        raise ValueError(f"the models were run on different splits of folds "
                         f"{splits.index[splits > 1].tolist()}; run them again")
    ranks = wide.rank(axis="columns", ascending=False).mean().sort_values(kind="stable")
    critical = stats.studentized_range.ppf(1 - level, k, np.inf) / math.sqrt(2)
    critical = float(critical * math.sqrt(k * (k + 1) / (6 * n)))
    groups, end = [], 0
    for i, rank in enumerate(ranks):
        last = int(np.searchsorted(ranks.to_numpy(), rank + critical))  # first one told apart
        if last > max(end, i + 1):
            groups.append(ranks.index[i:last].tolist())
            end = last
    p_value = float(stats.friedmanchisquare(*wide.to_numpy().T).pvalue)
    return MeanRanks(ranks, critical, p_value, groups, n)


def holm(p_values: Iterable[float]) -> np.ndarray:
    """Holm's (1979) correction: p-values of several tests, valid all at once."""
    p = np.asarray(list(p_values), dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    out = np.empty_like(p)
    out[order] = adjusted
    return out


def kendall_tau(order: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of one order of models with others, pair by pair over common folds.

    Kendall (1945): (C - D) / sqrt(n_1 n_2), with C pairs in the same order, D in the other, and
    n_1, n_2 pairs not tied in the one and in the other.

    Args:
        order: (M,) float, a number for each model.
        values: (..., M, F) float, numbers over F folds; NaN where a model has no run. A pair is
            compared by its mean difference over the folds that both have, and left out if there
            are none. With one fold, or the same for all, it is the tau-b of the means.

    Returns:
        (...) float from -1 to 1; NaN if all pairs are tied.
    """
    i, j = np.triu_indices(len(order), 1)
    gap = values[..., i, :] - values[..., j, :]
    gap = np.where(np.isnan(gap), 0, gap).sum(axis=-1)
    common = ~np.isnan(values[..., i, :] + values[..., j, :]).all(axis=-1)
    ours = np.sign(np.round(gap, 12))  # sums of the same numbers in another order are ties
    theirs = np.sign(order[i] - order[j]) * common
    untied = np.abs(ours).sum(axis=-1) * np.abs(theirs).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return (ours * theirs).sum(axis=-1) / np.sqrt(untied)
