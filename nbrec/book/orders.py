"""Orders of models: how far folds agree on one, and a run with the thesis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from nbrec.book import NoRecords
from nbrec.book.claims import ENOUGH_FOLDS, Claim, judge
from nbrec.book.comparison import OVERVIEWS, THESIS_METRICS, corrected, thesis_pairs
from nbrec.book.findings import FAMILIES
from nbrec.metrics import per_user

ACCURACY = tuple(m for m in THESIS_METRICS if "@" in m)


class MeanRanks(NamedTuple):
    """Mean ranks of models over folds (1 is best), and which of them stand too close to tell.

    Args:
        ranks: model -> mean rank, the best first.
        critical_difference: mean ranks closer than this are not significantly different (Nemenyi).
        p_value: of Friedman's test that all models are alike.
        groups: largest sets of neighbours in the order without a significant difference, two
            models each at least.
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
    differ significantly over N folds if their mean ranks are q sqrt(k (k + 1) / (6 N)) apart at
    least, q being the studentised range for k models and infinitely many degrees of freedom, over
    sqrt 2.

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
        NoRecords: if there are fewer than three models, or they share fewer than two folds.
        ValueError: if their splits differ.
    """
    chosen = df[df["variant"] == variant].drop_duplicates(["model", "fold"], keep=False)
    if models is None:
        count = chosen["model"].value_counts()
        models = count.index[count >= count.iloc[:3].min()]
    chosen = chosen[chosen["model"].isin(models := list(models))]
    wide = chosen.pivot(index="fold", columns="model", values=metric).dropna()
    n, k = wide.shape
    if k < 3 or n < 2:
        raise NoRecords(f"mean ranks need three models with two folds in common; {sorted(models)} "
                         f"on variant {variant!r} have {n} folds in common")
    _check_splits(chosen[chosen["fold"].isin(wide.index)])
    ranks = wide.rank(axis="columns", ascending=False).mean().sort_values(kind="stable")
    critical = stats.studentized_range.ppf(1 - level, k, np.inf) / math.sqrt(2)
    critical = float(critical * math.sqrt(k * (k + 1) / (6 * n)))
    groups, end = [], 0
    for i, rank in enumerate(ranks):
        last = int(np.searchsorted(ranks.to_numpy(), rank + critical))  # first one that differs
        if last > max(end, i + 1):
            groups.append(ranks.index[i:last].tolist())
            end = last
    p_value = float(stats.friedmanchisquare(*wide.to_numpy().T).pvalue)
    return MeanRanks(ranks, critical, p_value, groups, n)


def _check_splits(df: pd.DataFrame) -> None:
    splits = df.groupby("fold")["split_hash"].nunique()
    if (splits > 1).any():
        raise ValueError("the models were run on different splits of folds "
                         f"{splits.index[splits > 1].tolist()}; run them again")


def thesis_order(df: pd.DataFrame, metrics: Iterable[str] = ACCURACY, level: float = 0.05
                 ) -> pd.DataFrame:
    """Whether each pair of the thesis's models stands in its order here.

    Args:
        df: of `load_records`, one profile and dataset, original and truncated sequences.
        metrics: of `comparison.THESIS_METRICS`; the pairs of each are corrected together.
        level: of Holm's test.

    Returns:
        variant, metric, group ("Item-KNN and hybrids", "among hybrids"), first, second (the
        thesis's order), difference with low, high, p_value, n, basis (of `claims.difference`),
        p_holm, verdict ("confirmed" or "reversed" beyond chance, else "open"); pairs without a
        fold in common are left out.
    """
    families, parts = list(dict.fromkeys(FAMILIES.values())), []
    for variant, metric in product(OVERVIEWS, metrics):
        claim = Claim("", tuple(thesis_pairs(df, metric, variant)), metric)
        found = judge(df, claim, variant, level).evidence
        kinds = [sorted((FAMILIES[m] for m in pair), key=families.index)
                 for pair in zip(found["first"], found["second"], strict=True)]
        found.insert(0, "group", [f"among {a}" if a == b else f"{a} and {b}" for a, b in kinds])
        found["verdict"] = np.select([found["p_holm"] >= level, found["difference"] > 0],
                                     ["open", "confirmed"], "reversed")
        parts.append(found.assign(variant=variant, metric=metric))
    return pd.concat(parts, ignore_index=True)


def significant_pairs(found: MeanRanks) -> set[frozenset[str]]:
    """The pairs whose mean ranks differ by the critical difference or more."""
    return {frozenset(pair) for pair in combinations(found.ranks.index, 2)
            if abs(found.ranks[pair[0]] - found.ranks[pair[1]]) >= found.critical_difference}


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


def rank_agreement(df: pd.DataFrame, metrics: Iterable[str] = THESIS_METRICS, n: int = 1000
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
    share `ENOUGH_FOLDS` of them, else there is no interval. The thesis's numbers are taken as
    printed (and corrected). Drawing users turns close pairs round, so the interval need not lie
    evenly about tau.

    Args:
        df: of `load_records`, one profile and dataset.
        metrics: of `THESIS_METRICS`.
        n: number of resamples.

    Returns:
        variant, metric, tau, low, high, models, pairs (with a fold in common), least and most
        (folds that a pair shares), over ("users", "folds", or "" without an interval); no row
        where fewer than three models of the thesis have records.
    """
    generator, rows, metrics = np.random.default_rng(0), [], list(metrics)
    for variant, table in OVERVIEWS.items():
        part = df[df["variant"] == variant].drop_duplicates(["model", "fold"], keep=False)
        models = [m for m in corrected(table, "hr@20").index if m in set(part["model"])]
        part = part[part["model"].isin(models)]
        if len(models) < 3:
            continue
        _check_splits(part)
        held = part.pivot(index="model", columns="fold", values="split_hash").notna().loc[models]
        common = (held.to_numpy(int) @ held.T.to_numpy(int))[np.triu_indices(len(models), 1)]
        shared = np.flatnonzero(held.all())
        resampled = _resampled(part, models, [m for m in metrics if "@" in m], n, generator)
        for metric in metrics:
            thesis = corrected(table, metric).loc[models].to_numpy()
            values = part.pivot(index="model", columns="fold", values=metric).loc[models]
            values, over = values.to_numpy(float), ""
            if metric in resampled:
                over, drawn = "users", resampled[metric]
            elif shared.size >= ENOUGH_FOLDS:
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
        runs = df[df["fold"] == fold].set_index("model")["record"]
        ranks = {model: np.asarray(record["ranks"]) for model, record in runs.items()}
        users = len(ranks[runs.index[0]])
        times = generator.multinomial(users, np.full(users, 1 / users), size=n) / users
        for metric, (model, own) in product(metrics, ranks.items()):
            out[metric][:, models.index(model), i] = times @ per_user(metric, own)
    return out
