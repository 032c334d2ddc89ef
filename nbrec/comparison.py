"""Records beside each other: sums over folds, paired tests, and the thesis's printed numbers.

Everything here reads a table of `records.load_records` and returns a table or a few numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import combinations, pairwise, product
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from nbrec.metrics import discounted_gains, hits, reciprocal_ranks
from nbrec.records import read_record

ERRATA = {
    ("5.1", "item-knn", "original", "ndcg@20"): (
        0.0879,
        "Table 5.1 prints 0.1489, which is the NDCG@100 of Table A.2; its NDCG@20 is 0.0879",
    ),
    ("5.2", "transformer+minibert", "truncated", "seconds"): (
        307.8,
        "Table 5.2 prints 5.56 min, Table A.11 gives 5.13 min",
    ),
}  # (table, model, variant, metric): (right value, footnote)


THESIS_METRICS = ("hr@1", "hr@20", "hr@300", "ndcg@20", "stars", "seconds")  # of 5.1 and 5.2
OVERVIEWS = {"original": "5.1", "truncated": "5.2"}  # variant: table


# --- sums over folds -----------------------------------------------------------------------------


def metric_names(df: pd.DataFrame) -> list[str]:
    """The columns `hr@1`, `mrr@20`, ... of a table of records."""
    return [c for c in df.columns if re.fullmatch(r"(hr|mrr|ndcg)@\d+", c)]


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


# --- differences between models ------------------------------------------------------------------


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


def compare_variants(
    df: pd.DataFrame, metrics: Iterable[str] = ("ndcg@20",), a: str = "truncated",
    b: str = "original",
) -> pd.DataFrame:
    """Difference of each model between two variants of the sequences (a minus b).

    The variants have their own users and folds, so nothing is paired: Welch's (1947) t interval,
    in which the variance of either mean is widened as in `paired_test`.

    Args:
        df: of `load_records`, one profile and dataset.

    Returns:
        one row per metric and model that has at least two folds of both variants: metric, model,
        the two means (named a and b), difference, low, high.
    """
    rows = []
    for metric, model in product(metrics, df["model"].unique()):
        parts = [df[(df["model"] == model) & (df["variant"] == v)] for v in (a, b)]
        if min(map(len, parts)) < 2:
            continue
        mean = [part[metric].mean() for part in parts]
        variance = np.array([
            (1 / len(part) + (part["n_test"] / part["n_train"]).mean()) * part[metric].var()
            for part in parts
        ])
        weight = (variance**2 / [len(part) - 1 for part in parts]).sum()
        freedom = variance.sum() ** 2 / weight if weight else math.inf
        half = stats.t.ppf(0.975, freedom) * math.sqrt(variance.sum())
        gap = mean[0] - mean[1]
        rows.append((metric, model, *mean, gap, gap - half, gap + half))
    return pd.DataFrame(rows, columns=["metric", "model", a, b, "difference", "low", "high"])


def paired_ranks(
    df: pd.DataFrame, a: str, b: str, variant: str = "original"
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the same test users under two models, over all folds that both have: two (U,)."""
    first, second = _pair(df, a, b, variant)
    return tuple(
        np.concatenate([read_record(path)["ranks"] for path in part["path"]])
        for part in (first, second)
    )


def _of_users(metric: str, ranks: np.ndarray) -> np.ndarray:
    """What a metric such as "hr@20" gives each user: (U,) ranks -> (U,) float."""
    kind, k = metric.split("@")
    function = {"hr": hits, "mrr": reciprocal_ranks, "ndcg": discounted_gains}[kind]
    return function(np.asarray(ranks), int(k))


def bootstrap_difference(a: np.ndarray, b: np.ndarray, n: int = 2000, seed: int = 0) -> Difference:
    """Percentile bootstrap over users of the difference of two means (Efron and Tibshirani 1993).

    Args:
        a, b: (U,) float, values of the same users under two models, such as
            `metrics.hits(ranks, 20)` or `metrics.discounted_gains(ranks, 20)`.
        n: number of resamples.

    Returns:
        Difference; its p_value is twice the smaller share of resamples on either side of zero.
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
    p_value = min(1.0, 2 * min(np.mean(means <= 0), np.mean(means >= 0)))
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
            values = _of_users(metric, group["rank"])
            others = _of_users(metric, group["other"]) if against else np.zeros(len(values))
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
            values = [_of_users(metric, r) for r in ranks]
            found = bootstrap_difference(values[0], values[1] if against else 0 * values[0], n)
            rows.append((variant, model, metric, *found, len(shared[model])))
    return pd.DataFrame(rows, columns=["variant", "model", "metric", "mean", "low", "high",
                                       "p_value", "n", "folds"])


def truncation_effect(
    df: pd.DataFrame, metrics: Iterable[str] = ("hr@20",), n: int = 2000, seed: int = 0,
) -> pd.DataFrame:
    """What truncation does to each model, with 95% bootstrap intervals over the users.

    The variants have their own test users and targets, so users are drawn for each on their own.
    Unlike `compare_variants` it does with one fold of each, and takes the trained models as given.

    Args:
        df: of `load_records`, one profile and dataset.
        metrics: such as "hr@20" or "ndcg@20".
        n: number of resamples.

    Returns:
        metric, model, three means over users with their intervals (original, original_low,
        original_high, the same for truncated and for difference: truncated minus original), folds
        (of the variant that has fewer), thesis (its difference; NaN for a model that it does not
        have), for the models that have records of both variants.
    """
    generator, rows, metrics = np.random.default_rng(seed), [], list(metrics)
    for model, part in df.groupby("model", sort=False):
        paths = {v: part.loc[part["variant"] == v, "path"] for v in OVERVIEWS}
        if not all(map(len, paths.values())):
            continue
        ranks = {v: np.concatenate([read_record(path)["ranks"] for path in paths[v]])
                 for v in OVERVIEWS}
        for metric in metrics:
            row = {"metric": metric, "model": model, "folds": min(map(len, paths.values()))}
            mean, drawn = {}, {}
            for v in OVERVIEWS:
                values, counts = np.unique(_of_users(metric, ranks[v]), return_counts=True)
                times = generator.multinomial(counts.sum(), counts / counts.sum(), size=n)
                mean[v], drawn[v] = counts @ values / counts.sum(), times @ values / counts.sum()
            for source in (mean, drawn):
                source["difference"] = source["truncated"] - source["original"]
            for name, means in drawn.items():
                row[name] = float(mean[name])
                row[f"{name}_low"], row[f"{name}_high"] = np.quantile(means, [0.025, 0.975])
            rows.append(row)
    quantities = [f"{q}{end}" for q in (*OVERVIEWS, "difference") for end in ("", "_low", "_high")]
    out = pd.DataFrame(rows, columns=["metric", "model", *quantities, "folds"])
    there = {m: _corrected("5.2", m) - _corrected("5.1", m)
             for m in metrics if m in THESIS_METRICS}
    out["thesis"] = [there[m].get(model, np.nan) if m in there else np.nan
                     for m, model in zip(out["metric"], out["model"], strict=True)]
    return out


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


# --- the thesis's printed numbers ----------------------------------------------------------------


# The thesis does not say which of its two encoders stands behind "Transformer + BERT".
OUR_NAMES = {"transformer+bert": "transformer+minibert"}


@cache
def _thesis_file(name: str) -> pd.DataFrame:
    with resources.files("nbrec").joinpath("thesis", f"{name}.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype={"table": str, "k": "Int64"})
    return table.replace({"model": OUR_NAMES}) if "model" in table else table


def thesis_table(name: str) -> pd.DataFrame:
    """Printed numbers of one table of the thesis, such as "5.1", "A.5" or "3.2".

    Models have our names: see `OUR_NAMES`.
    Hit rates are fractions, times are seconds (minutes in the sweeps 2.1, 3.2, 3.4, 5.3).

    Raises:
        ValueError: if the thesis has no such table of results.
    """
    known: list[str] = []
    for file in ("overview", "cross_validation", "sweeps"):
        df = _thesis_file(file)
        if name in set(df["table"]):
            rows = df[df["table"] == name].drop(columns="table")
            return rows.dropna(axis="columns", how="all").reset_index(drop=True)
        known += df["table"].unique().tolist()
    raise ValueError(f"the thesis has no table {name!r} of results; there are {', '.join(known)}")


def _thesis_long(table: str) -> pd.DataFrame:
    """One row per model, variant and metric: thesis, thesis_sd."""
    names = ["model", "sequences", "metric"]
    details = _thesis_file("cross_validation").rename(
        columns={"mean": "thesis", "std": "thesis_sd"}
    )
    with_k = details["metric"] + "@" + details["k"].astype("string")
    details = details.assign(metric=with_k.fillna(details["metric"]))
    if table in set(details["table"]):
        long = details[details["table"] == table][[*names, "thesis", "thesis_sd"]]
    elif table in ("5.1", "5.2"):
        wide = thesis_table(table).rename(columns={"personalisation_stars": "stars"})
        long = wide.melt(names[:2], var_name="metric", value_name="thesis")
        long = long.merge(details[[*names, "thesis_sd"]], on=names, how="left")
    else:
        raise ValueError(f"table {table!r} cannot be compared; choose 5.1, 5.2 or A.1 to A.13")
    return long.rename(columns={"sequences": "variant"})


def compare_with_thesis(df: pd.DataFrame, table: str = "5.1") -> pd.DataFrame:
    """Thesis, this run and their difference, for the models that both have.

    Where the printed number is known to be wrong, `thesis` keeps it, `corrected` holds the right
    one, the difference is taken to that, and `note` says so.

    Args:
        df: of `load_records`, one profile and dataset.
        table: "5.1", "5.2", or one of "A.1" to "A.13".

    Returns:
        model, variant, metric, thesis, corrected, thesis_sd, this_run, sd, n, difference, dataset,
        note; in the thesis's order.
    """
    right = _thesis_long(table)
    notes = [
        ERRATA.get((table, *row))
        for row in zip(right["model"], right["variant"], right["metric"], strict=True)
    ]
    right["corrected"] = [e[0] if e else v for e, v in zip(notes, right["thesis"], strict=True)]
    right["note"] = [e[1] if e else "" for e in notes]
    ours = summary(df).rename(columns={"mean": "this_run"})
    out = right.merge(ours.drop(columns=["low", "high"]), on=["model", "variant", "metric"])
    out["difference"] = out["this_run"] - out["corrected"]
    return out[["model", "variant", "metric", "thesis", "corrected", "thesis_sd", "this_run", "sd",
                "n", "difference", "dataset", "note"]]


def beside_thesis(runs: Mapping[str, pd.DataFrame], table: str = "5.1") -> pd.DataFrame:
    """Thesis, several runs, and their differences to it, one below the other.

    Args:
        runs: label -> records of one profile and dataset; a run need not have all models.
        table: as in `compare_with_thesis`.

    Returns:
        model, variant, metric, source ("thesis", a label, or "difference, <label>"), value, sd,
        note, for all models of the table that some run has, in the thesis's order.
    """
    names = ["model", "variant", "metric"]
    parts = []
    for label, df in runs.items():
        both = compare_with_thesis(df, table)
        if both.empty:
            continue
        for source, value, sd in (("thesis", "thesis", "thesis_sd"), (label, "this_run", "sd"),
                                  (f"difference, {label}", "difference", None)):
            part = both[names].assign(source=source, value=both[value])
            part["sd"] = both[sd] if sd else np.nan
            parts.append(part.assign(note=both["note"] if source == "thesis" else ""))
    if not parts:
        return pd.DataFrame(columns=[*names, "source", "value", "sd", "note"])
    long = pd.concat(parts, ignore_index=True).drop_duplicates([*names, "source"])
    place = pd.Series(range(len(order := _thesis_long(table))), order.set_index(names).index)
    rank = place.loc[pd.MultiIndex.from_frame(long[names])].to_numpy()
    return long.iloc[np.argsort(rank, kind="stable")].reset_index(drop=True)


def _corrected(table: str, metric: str) -> pd.Series:
    """Model -> the thesis's number, the right one where the printed one is wrong."""
    printed = _thesis_long(table).set_index(["model", "variant", "metric"])["thesis"]
    own = printed.xs(metric, level="metric").droplevel("variant").dropna()
    variant = next(v for v, t in OVERVIEWS.items() if t == table)
    right = {m: ERRATA.get((table, m, variant, metric), (value,))[0] for m, value in own.items()}
    return pd.Series(right, dtype=float)


def thesis_pairs(
    df: pd.DataFrame, metric: str = "ndcg@20", variant: str = "original"
) -> list[tuple[str, str]]:
    """(better, worse) for each pair of models of Tables 5.1 and 5.2, as the thesis has them.

    Args:
        df: of `load_records`; models without records of the variant are left out.
        metric: one of `THESIS_METRICS` of which more is better; pairs with the same number are
            left out. Known errors of the thesis are corrected.
    """
    right = _corrected(OVERVIEWS[variant], metric)
    have = set(df.loc[df["variant"] == variant, "model"])
    right = right[[m for m in right.index if m in have]].sort_values(ascending=False, kind="stable")
    return [(a, b) for a, b in combinations(right.index, 2) if right[a] > right[b]]


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


def rank_agreement(
    df: pd.DataFrame, metrics: Iterable[str] = THESIS_METRICS, n: int = 1000, seed: int = 0,
    enough: int = 5,
) -> pd.DataFrame:
    """Kendall's tau-b between the thesis's order of the models and that of a run.

    Kendall (1945): 1 for the same order, -1 for the reverse, 0 for as many pairs in one order as
    in the other; ties count in neither. Each pair of models is compared over the folds that both
    have, since one fold can be easier than another; with the same folds everywhere this is the
    tau-b of the means.

    The interval is a percentile bootstrap. For accuracy it is over users: each fold has other
    test users, and a drawn user is drawn for all models alike. Folds could not be drawn instead,
    because expensive models have one to three of them. So the trained models are taken as given.
    Stars and seconds are no properties of single users; for them folds are drawn, if all models
    share `enough` of them, else there is no interval. The thesis's numbers are taken as printed
    (and corrected). Drawing users turns close pairs round, so the interval need not lie evenly
    about tau.

    Args:
        df: of `load_records`, one profile and dataset.
        metrics: of `THESIS_METRICS`.
        n: number of resamples.
        enough: folds needed for an interval of stars and seconds.

    Returns:
        variant, metric, tau, low, high, models, pairs (with a fold in common), least and most
        (folds that a pair shares), over ("users", "folds", or "" without an interval); no row
        where fewer than three models of the thesis have records.
    """
    generator, rows, metrics = np.random.default_rng(seed), [], list(metrics)
    for variant, table in OVERVIEWS.items():
        part = df[df["variant"] == variant].drop_duplicates(["model", "fold"], keep=False)
        models = [m for m in _corrected(table, "hr@20").index if m in set(part["model"])]
        part = part[part["model"].isin(models)]
        if len(models) < 3:
            continue
        splits = part.groupby("fold")["split_hash"].nunique()
        if (splits > 1).any():
            raise ValueError(f"the models were run on different splits of folds "
                             f"{splits.index[splits > 1].tolist()}; run them again")
        held = part.pivot(index="model", columns="fold", values="split_hash").notna().loc[models]
        common = (held.to_numpy(int) @ held.T.to_numpy(int))[np.triu_indices(len(models), 1)]
        shared = np.flatnonzero(held.all())
        resampled = _resampled(part, models, [m for m in metrics if "@" in m], n, generator)
        for metric in metrics:
            thesis = _corrected(table, metric).loc[models].to_numpy()
            values = part.pivot(index="model", columns="fold", values=metric).loc[models]
            values, over = values.to_numpy(float), ""
            if metric in resampled:
                over, drawn = "users", resampled[metric]
            elif shared.size >= enough:
                over = "folds"
                drawn = values[:, generator.choice(shared, (n, shared.size))].swapaxes(0, 1)
            low, high = (np.nanquantile(kendall_tau(thesis, drawn), [0.025, 0.975]) if over
                         else (np.nan, np.nan))
            tau = float(kendall_tau(thesis, values))
            rows.append((variant, metric, tau, low, high, len(models), int((common > 0).sum()),
                         int(common.min()), int(common.max()), over))
    return pd.DataFrame(rows, columns=["variant", "metric", "tau", "low", "high", "models", "pairs",
                                       "least", "most", "over"])


def _resampled(
    df: pd.DataFrame, models: list[str], metrics: list[str], n: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Means over resampled users, the same ones for all models: metric -> (n, M, F), or NaN."""
    folds = sorted(df["fold"].unique())
    out = {m: np.full((n, len(models), len(folds)), np.nan) for m in metrics}
    for i, fold in enumerate(folds):
        runs = df[df["fold"] == fold].set_index("model")["path"]
        ranks = {model: np.asarray(read_record(path)["ranks"]) for model, path in runs.items()}
        users = len(ranks[runs.index[0]])
        times = generator.multinomial(users, np.full(users, 1 / users), size=n) / users
        for metric, (model, own) in product(metrics, ranks.items()):
            out[metric][:, models.index(model), i] = times @ _of_users(metric, own)
    return out
