"""Accuracy user by user: over all, by groups, and for users whose histories were cut off."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise, product

import numpy as np
import pandas as pd

from nbrec.book.comparison import OVERVIEWS, THESIS_METRICS, corrected
from nbrec.book.significance import bootstrap_difference, paired_ranks, summary
from nbrec.metrics import per_user


def by_group(
    users: pd.DataFrame, column: str, edges: int | Sequence[float],
    metrics: Iterable[str] = ("hr@20",), against: str | None = None,
) -> pd.DataFrame:
    """Accuracy over groups of test users, with 95% bootstrap intervals over the users.

    Args:
        users: of `records.per_user`, one profile, dataset and variant.
        column: what to group by, such as "target_popularity" or "history_length".
        edges: where one group ends (inclusive) and the next begins; or how many groups there are
            to be, of as many test users each as ties allow.
        metrics: such as "hr@20" or "ndcg@20".
        against: a model; then the means are those of the difference to it, user by user.

    Returns:
        metric, model, place (0, 1, ..), group (its name), users, mean, low, high; without the
        groups that a model has no users in.
    """
    if isinstance(edges, int):
        everyone = users.drop_duplicates(["fold", "user"])[column]
        ends: Sequence[float] = np.unique(
            everyone.quantile(np.arange(1, edges) / edges)).tolist()
    else:
        ends = edges
    step = 1 if pd.api.types.is_integer_dtype(users[column]) else 0
    names = [f"up to {ends[0]:.3g}", *(f"{low + step:.3g}–{high:.3g}" for low, high in
                                       pairwise(ends)), f"over {ends[-1]:.3g}"]
    if against:
        other = users[users["model"] == against].set_index(["fold", "user"])["rank"]
        users = users[users["model"] != against].join(other.rename("other"), on=["fold", "user"])
        users = users.dropna(subset="other")
    rows = []
    for metric, (model, part) in product(metrics, users.groupby("model", sort=False)):
        for place, group in part.groupby(np.searchsorted(ends, part[column])):
            values = per_user(metric, group["rank"])
            others = per_user(metric, group["other"]) if against else np.zeros(len(values))
            mean = bootstrap_difference(values, others, 1000)
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
            ranks = list(paired_ranks(df, model, against, variant))
        else:
            own = chosen.loc[chosen["model"] == model].sort_values("fold")["record"]
            ranks = [np.concatenate([record["ranks"] for record in own])]
        for metric in metrics:
            values = [per_user(metric, r) for r in ranks]
            found = bootstrap_difference(values[0], values[1] if against else 0 * values[0], n)
            rows.append((variant, model, metric, *found, len(shared[model])))
    return pd.DataFrame(rows, columns=["variant", "model", "metric", "mean", "low", "high",
                                       "p_value", "n", "folds"])


def beside_baseline(df: pd.DataFrame, baseline: str, metric: str = "ndcg@20") -> pd.DataFrame:
    """A metric of each model with intervals of two kinds, and how far it is from a baseline's.

    Args:
        df: of `load_records`, one profile and dataset; original sequences are used.
        baseline: a model; without records of it the differences are NaN.

    Returns:
        model, folds, users, mean, low, high (over users), fold_low, fold_high (over folds), ahead,
        ahead_low, ahead_high (over the users of the folds that both have); the best first.
    """
    plain = over_users(df, [metric]).set_index("model")
    ahead = over_users(df, [metric], against=baseline).set_index("model")
    folds = summary(df[df["variant"] == "original"], [metric]).set_index("model")
    out = plain[["folds", "n", "mean", "low", "high"]].rename(columns={"n": "users"})
    out = out.join(folds[["low", "high"]].add_prefix("fold_"))
    ahead = ahead.rename(columns={"mean": "ahead", "low": "ahead_low", "high": "ahead_high"})
    out = out.join(ahead[["ahead", "ahead_low", "ahead_high"]])
    return out.sort_values("mean", ascending=False, kind="stable").reset_index()


def truncation_effect(df: pd.DataFrame, metrics: Iterable[str] = ("hr@20",), n: int = 2000
                      ) -> pd.DataFrame:
    """What truncation does to each model, on all test users and on those of both variants.

    Cutting off the first films leaves the last one alone, so a user who is in both variants has the
    same target in both, and the two ranks are a pair. Other users are in one variant only: short
    histories leave, histories that were too long enter. A comparison of the two means, such as the
    thesis's, mixes truncation with this exchange.

    Args:
        df: of `load_records`, one profile and dataset.
        metrics: such as "hr@20" or "ndcg@20".
        n: number of resamples for the intervals of the two means and of their difference, which
            take the trained models as given.

    Returns:
        For the models that have records of both variants: metric, model; three means over all users
        with 95% bootstrap intervals over the users (original, original_low, original_high, the same
        for truncated and for difference: truncated minus original); users (in both variants), same
        (mean difference of those), same_low, same_high (95%, normal, its variance widened for
        training parts that overlap by Nadeau and Bengio 2003, as in `significance.paired_test`; NaN
        with fewer than two users); left, entered (means of the users who are in the original, in
        the truncated sequences only; NaN without any); folds (of the variant that has fewer),
        thesis (its difference of means; NaN for a model that it does not have).
    """
    generator, rows, metrics = np.random.default_rng(0), [], list(metrics)
    for model, part in df.groupby("model", sort=False):
        parts = {v: part[part["variant"] == v] for v in OVERVIEWS}
        if not all(map(len, parts.values())):
            continue
        ranks = {v: pd.concat([pd.Series(record["ranks"], record["users"])
                               for record in own["record"]]) for v, own in parts.items()}
        share = (part["n_test"] / part["n_train"]).mean()
        for metric in metrics:
            row = {"metric": metric, "model": model, "folds": min(map(len, parts.values()))}
            mean, drawn = {}, {}
            own = {v: pd.Series(per_user(metric, r.to_numpy()), r.index)
                   for v, r in ranks.items()}
            for v in OVERVIEWS:
                values, counts = np.unique(own[v], return_counts=True)
                times = generator.multinomial(counts.sum(), counts / counts.sum(), size=n)
                mean[v], drawn[v] = counts @ values / counts.sum(), times @ values / counts.sum()
            for source in (mean, drawn):
                source["difference"] = source["truncated"] - source["original"]
            for name, means in drawn.items():
                row[name] = float(mean[name])
                row[f"{name}_low"], row[f"{name}_high"] = np.quantile(means, [0.025, 0.975])
            d = (own["truncated"] - own["original"]).dropna()
            half = 1.96 * d.std() * math.sqrt((1 + row["folds"] * share) / len(d)) if len(d) else 0
            row |= {"users": len(d), "same": d.mean(), "same_low": d.mean() - half,
                    "same_high": d.mean() + half,
                    "left": own["original"].drop(d.index).mean(),
                    "entered": own["truncated"].drop(d.index).mean()}
            rows.append(row)
    quantities = [f"{q}{end}" for q in (*OVERVIEWS, "difference", "same")
                  for end in ("", "_low", "_high")]
    out = pd.DataFrame(rows, columns=["metric", "model", *quantities, "users", "left", "entered",
                                      "folds"])
    there = {m: corrected("5.2", m) - corrected("5.1", m)
             for m in metrics if m in THESIS_METRICS}
    out["thesis"] = [there[m].get(model, np.nan) if m in there else np.nan
                     for m, model in zip(out["metric"], out["model"], strict=True)]
    return out
